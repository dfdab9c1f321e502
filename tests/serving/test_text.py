"""Choosing tokens, spelling them, and telling calls from content: the parts that need no model."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from burnish.serving.sampling import LOWEST, Sampler, Sampling, think
from burnish.serving.spelling import HALF, Spelling, Vocabulary, held_back
from burnish.serving.tools import HERMES, LLAMA3, ToolCall, ToolReader, format_of

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def draws(sampling: Sampling, count: int = 200, choice: int = 0) -> list[int]:
    sampler = Sampler(sampling, choice)
    return [sampler.choose(LOGITS) for _ in range(count)]


def test_a_seed_gives_the_same_draws_again_and_other_choices_other_ones() -> None:
    assert draws(Sampling(seed=7)) == draws(Sampling(seed=7)) != draws(Sampling(seed=8))
    assert draws(Sampling(seed=7), choice=1) != draws(Sampling(seed=7))
    assert draws(Sampling(seed=-1)) == draws(Sampling(seed=-1))
    assert draws(Sampling()) != draws(Sampling())


def test_draws_follow_the_distribution() -> None:
    counted = Counter(draws(Sampling(seed=0), 4000))
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert abs(counted[token] / 4000 - share) < 0.03


@pytest.mark.parametrize(("top_p", "kept"), [(0.0, 1), (0.4, 1), (0.6, 2), (0.9, 3), (1.0, 4)])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, kept: int) -> None:
    assert set(draws(Sampling(seed=0, top_p=top_p))) == set(range(kept))


@pytest.mark.parametrize("temperature", [0.0, 1e-12, 1e-3])
def test_a_temperature_near_zero_is_greedy_and_no_nan(temperature: float) -> None:
    assert set(draws(Sampling(temperature=temperature, seed=0), 20)) == {0}


def test_penalties_and_biases_move_a_greedy_choice() -> None:
    assert draws(Sampling(temperature=0.0, presence_penalty=1.0), 3) == [0, 1, 0]
    assert draws(Sampling(temperature=0.0, frequency_penalty=0.4), 3) == [0, 0, 1]
    assert draws(Sampling(temperature=0.0, logit_bias={3: 100.0}), 2) == [3, 3]
    assert torch.equal(LOGITS, torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])))


def test_what_the_model_thinks_is_told_before_temperature_and_is_always_a_number() -> None:
    thought = think(torch.tensor([0.0, -math.inf, 0.0]), 1, 2)
    assert thought.logprob == LOWEST
    assert [token for token, _ in thought.top] == [0, 2]
    assert all(abs(logprob - math.log(0.5)) < 1e-6 for _, logprob in thought.top)
    assert len(think(LOGITS, 0, 20).top) == 4


@pytest.fixture(scope="module")
def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's: words begin with ▁, unknown characters fall into bytes, the first space is dropped."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", *bytes_], show_progress=False)
    backend.train_from_iterator(["the cat sat on a mat and the dog ran"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<unk>")


def spelled(vocabulary: Vocabulary, ids: list[int], stops: tuple[str, ...] = ()) -> list[str]:
    spelling = Spelling(vocabulary, stops=stops)
    deltas = []
    for index in ids:
        deltas.append(spelling.push(index))
        if spelling.stopped:
            return deltas
    return [*deltas, spelling.finish()]


@given(text=st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_deltas_together_are_the_text_and_never_hold_half_a_character(text: str, tokenizer: Any) -> None:
    ids = tokenizer(text)["input_ids"]
    deltas = spelled(Vocabulary(tokenizer), ids)
    assert "".join(deltas) == tokenizer.decode(ids, skip_special_tokens=True)
    if HALF not in text:
        assert not any(HALF in delta for delta in deltas)


@given(ids=st.lists(st.integers(0, 383), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_ids_are_spelled_as_the_whole_decodes(ids: list[int], tokenizer: Any) -> None:
    assert "".join(spelled(Vocabulary(tokenizer), ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("text", ["the cat é🙂日本 sat", "🙂", " the  dog", "a\n\nUser"])
def test_words_that_begin_with_their_space_and_bytes_are_spelled_as_a_whole(
    text: str, metaspace: PreTrainedTokenizerFast
) -> None:
    ids = metaspace(text)["input_ids"]
    deltas = spelled(Vocabulary(metaspace), ids)
    assert "".join(deltas) == metaspace.decode(ids, skip_special_tokens=True)
    assert not any(HALF in delta for delta in deltas)


def test_a_window_of_one_token_would_show_half_characters(tokenizer: Any) -> None:
    ids = tokenizer("🙂")["input_ids"]
    assert any(HALF in tokenizer.decode([index]) for index in ids)


@given(before=st.text("abU ser\n:é", max_size=20), after=st.text("abUser\n:", max_size=8))
@settings(max_examples=150, deadline=None)
def test_an_answer_ends_before_the_first_stop_string_and_shows_nothing_of_it(
    before: str, after: str, tokenizer: Any
) -> None:
    stops = ("\nUser", "::")
    whole = before + stops[0] + after
    expected = whole[: min(at for stop in stops if (at := whole.find(stop)) >= 0)]
    spelling = Spelling(Vocabulary(tokenizer), stops=stops)
    shown = ""
    for index in tokenizer(whole)["input_ids"]:
        shown += spelling.push(index)
        assert expected.startswith(shown)
        if spelling.stopped:
            break
    assert shown == expected and spelling.stopped and spelling.finish() == ""


def test_what_could_begin_a_stop_string_is_held() -> None:
    assert held_back("say\n\nUs", ["\n\nUser"]) == 4
    assert held_back("say\n", ["\n\nUser", "ay\nx"]) == 3
    assert held_back("say", ["\n"]) == 0


def test_a_part_of_a_character_is_told_by_its_bytes(tokenizer: Any) -> None:
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer("é🙂")["input_ids"]
    assert bytes(byte for index in ids for byte in vocabulary.bytes_of(index)).decode() == "é🙂"
    assert vocabulary.piece(ids[-1]).startswith("bytes:\\x")
    assert vocabulary.piece(tokenizer.eos_token_id) == "<|endoftext|>"


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "ü"}}\n</tool_call>'


def read(reader: ToolReader, text: str, size: int) -> tuple[str, list[ToolCall]]:
    content = "".join(reader.push(text[at : at + size]) for at in range(0, len(text), size))
    rest, calls = reader.finish()
    return content + rest, calls


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_found_however_the_answer_is_cut(size: int) -> None:
    add = ToolCall("add", '{"a": 1, "b": "ü"}')
    assert read(ToolReader(HERMES), f"Let me see.\n{CALL}\n{CALL}", size) == ("Let me see.\n", [add, add])
    assert read(ToolReader(LLAMA3), ' {"name": "add", "parameters": {}}', size) == (
        "",
        [ToolCall("add", "{}")],
    )


@pytest.mark.parametrize(
    "text",
    [
        "no call < at all <tool",
        '<tool_call>{"name": "add", "arguments": {"a": 1}',
        "<tool_call>{'name': 'add'}</tool_call>",
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "add", "name": "sub", "arguments": {}}</tool_call>',
        f"{CALL} and more",
        '{"a": 1}',
    ],
)
@pytest.mark.parametrize("format", [HERMES, LLAMA3, None])
def test_what_is_no_whole_call_is_content_to_the_letter(text: str, format: Any) -> None:
    assert read(ToolReader(format), text, 2) == (text, [])


def test_a_format_is_known_by_the_template() -> None:
    assert format_of("{{ '<tool_call>' }}") is HERMES
    assert format_of("<tool_call><function=add>") is None
    assert format_of('<|start_header_id|> ... "parameters": ') is LLAMA3
    assert format_of("{{ messages }}") is None
