"""Asking a model: batches answer as single prompts do, a base gets plain text, every part is found or named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from burnish.errors import DataError, UsageError
from burnish.models.assistant import load_assistant
from burnish.models.generate import generate
from burnish.models.load import add_token_rows, load_model, start_model
from burnish.models.locate import locate
from burnish.models.tokenizer import load_chat_tokenizer
from burnish.types import Conversation, Origin, Row

ModelDirectory = Callable[..., Path]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_batch_of_prompts_is_answered_as_each_alone(family: str, model_directory: ModelDirectory) -> None:
    model = load_model(str(model_directory(family)), dtype=torch.float32)
    prompts = [[5, 9, 11], [7] * 12, [40, 41], [3, 4, 5, 6, 7, 8]]
    together = generate(model, prompts, stop_ids=[20, 30], max_new_tokens=12, batch_size=4)
    alone = [generate(model, [p], stop_ids=[20, 30], max_new_tokens=12)[0] for p in prompts]
    assert together == alone
    assert [answer.prompt_ids for answer in together] == prompts


def test_an_answer_ends_with_its_stop_token_or_at_the_limit(model_directory: ModelDirectory) -> None:
    model = load_model(str(model_directory()), dtype=torch.float32)
    free = generate(model, [[5, 9, 11]], stop_ids=[], max_new_tokens=6)[0]
    assert free.finish_reason == "length" and len(free.completion_ids) == 6
    third = free.completion_ids[2]
    first = free.completion_ids.index(third)
    stopped = generate(model, [[5, 9, 11]], stop_ids=[third], max_new_tokens=6)[0]
    assert stopped.finish_reason == "stop"
    assert stopped.completion_ids == free.completion_ids[: first + 1]


def test_generating_leaves_the_mode_of_the_model_as_it_was(model_directory: ModelDirectory) -> None:
    model = load_model(str(model_directory())).train()
    generate(model, [[5]], stop_ids=[1], max_new_tokens=2)
    assert model.training


def test_a_base_without_a_template_is_given_plain_text(model_directory: ModelDirectory) -> None:
    base = load_assistant(str(model_directory()))
    assert base.tokenizer.template is None
    assert (
        base.tokenizer.prompt_ids("What of the sun?")
        == base.tokenizer.tokenizer("What of the sun?")["input_ids"]
    )


def test_prompts_are_those_of_transformers_own_chat_template(model_directory: ModelDirectory) -> None:
    chat = load_chat_tokenizer(str(model_directory()))
    messages = [{"role": "user", "content": "What of the sun?"}]
    expected = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert chat.prompt_ids(messages) == expected["input_ids"] == chat.prompt_ids("What of the sun?")
    assert len(chat.new_ids) == 2


def test_new_rows_begin_at_the_mean_and_the_others_stay(model_directory: ModelDirectory) -> None:
    model = load_model(str(model_directory()), dtype=torch.float32)
    before = model.get_input_embeddings().weight.detach().clone()
    rows = len(before)
    add_token_rows(model, rows + 2, [rows, rows + 1])
    after = model.get_input_embeddings().weight
    assert torch.equal(after[:rows], before)
    torch.testing.assert_close(after[rows:], before.mean(0).expand(2, -1))
    assert model.get_output_embeddings().weight is after


def test_a_padded_vocabulary_keeps_its_spare_rows_and_only_the_new_ids_change() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=520, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = transformers.LlamaForCausalLM(config)
    before = model.get_input_embeddings().weight.detach().clone()
    add_token_rows(model, 488, [483, 484, 485, 486, 487])
    after = model.get_input_embeddings().weight
    assert len(after) == 520
    changed = (after != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == [483, 484, 485, 486, 487]


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("config.json", {"_attn_implementation_internal": "someone/kernel"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ],
)
def test_a_model_that_brings_code_is_refused_before_it_is_opened(
    file: str, fields: dict[str, object], model_directory: ModelDirectory, tmp_path: Path
) -> None:
    for source in model_directory().iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    config = json.loads((tmp_path / file).read_text()) | fields
    (tmp_path / file).write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    with pytest.raises(DataError, match="runs no code|" + next(iter(fields))):
        load_assistant(str(tmp_path))
    assert not (tmp_path / "canary").exists()


def test_weights_in_a_pickle_are_refused(model_directory: ModelDirectory, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model_directory() / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="safetensors"):
        load_model(str(tmp_path))


def test_what_is_not_there_is_named_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="no/such-model"):
        locate("no/such-model")
    (tmp_path / "resolved.yaml").write_text("model: marble\n")
    with pytest.raises(UsageError, match="burnish resume"):
        load_assistant(str(tmp_path))


def test_a_new_model_starts_from_a_config_and_never_over_weights(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes((model_directory() / "config.json").read_bytes())
    torch.manual_seed(3)
    first = start_model(str(tmp_path)).state_dict()
    torch.manual_seed(3)
    again = start_model(str(tmp_path)).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in first.items())
    with pytest.raises(DataError, match="has weights already"):
        start_model(str(model_directory()))


GEMMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def test_a_template_from_a_file_brings_the_control_tokens_that_the_vocabulary_lacks(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    file = tmp_path / "turns.jinja"
    file.write_text(GEMMA_LIKE)
    chat = load_chat_tokenizer(str(model_directory()), chat_template=str(file))
    assert chat.tokenizer.convert_ids_to_tokens(list(chat.new_ids)) == ["<start_of_turn>", "<end_of_turn>"]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So it is."}]
    (view,) = chat.encoder.encode(Row(0, 0, Origin("x", 1), Conversation(messages)))
    graded = [i for i, weight in zip(view.input_ids, view.weights, strict=True) if weight]
    assert chat.tokenizer.decode(graded) == "So it is.<end_of_turn>"
    assert graded[-1] in chat.stop_ids


def test_a_template_whose_turns_end_in_the_models_own_token_adds_nothing(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    file = tmp_path / "plain.jinja"
    file.write_text(
        "{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }}\nA:{% else %} {{ m['content'] }}"
        "{{ eos_token }}{% endif %}{% endfor %}"
    )
    assert load_chat_tokenizer(str(model_directory()), chat_template=str(file)).new_ids == ()


def test_sampled_answers_come_again_from_the_same_seed_and_leave_torch_as_it_was(
    model_directory: ModelDirectory,
) -> None:
    model = load_model(str(model_directory()), dtype=torch.float32)

    def draw(seed: int) -> list[int]:
        return generate(model, [[5, 9]], stop_ids=[], max_new_tokens=12, temperature=1.0, seed=seed)[
            0
        ].completion_ids

    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert draw(0) == draw(0) != draw(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_answer_never_runs_past_the_last_position_of_the_model() -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=32, n_embd=8, n_layer=1, n_head=1, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    answer = generate(model, [[5] * 10], stop_ids=[], max_new_tokens=50)[0]
    assert (len(answer.completion_ids), answer.finish_reason) == (6, "length")


def test_the_new_end_of_a_turn_starts_as_the_end_of_text(model_directory: ModelDirectory) -> None:
    chat = load_chat_tokenizer(str(model_directory()))
    end = chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.like == {end: chat.tokenizer.eos_token_id}
    model = load_model(str(model_directory()), dtype=torch.float32)
    add_token_rows(model, len(chat), chat.new_ids, like=chat.like)
    rows = model.get_input_embeddings().weight
    assert torch.equal(rows[end], rows[chat.tokenizer.eos_token_id])
