"""The four ways with reasoning, on templates that prompt with a block and on ones that do not."""

from __future__ import annotations

from typing import Any

import pytest

from burnish.chat.certificate import verify
from burnish.chat.encode import Encoder
from burnish.chat.reasoning import (
    Reasoning,
    after_opening,
    closing_of,
    emptied,
    has_reasoning,
    is_block,
    is_closed,
    opened_by,
    with_opening,
    without_reasoning,
)
from burnish.chat.refusal import RowRefused
from burnish.chat.template import CHATML, ChatTemplate
from burnish.types import Conversation, Row
from tests.chat.families import assistant, chat, tokenizer_of, user

INLINE = "<think>\nwhy\n</think>\n\nso"
OPENS = CHATML.replace("<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n' }}").replace(
    "message['content']", "message['content'].split('</think>')[-1].lstrip()"
)
"""DeepSeek-R1: every prompt opens a block, and no render has what was thought."""

SWITCHED = CHATML.replace(
    "<|im_start|>assistant\\n' }}",
    "<|im_start|>assistant\\n' + ('' if enable_thinking is not defined or enable_thinking "
    "else '<think>\\n\\n</think>\\n\\n') }}",
)
"""Qwen3: `enable_thinking: false` puts an empty block into the prompt."""

FIELD = CHATML.replace(
    "message['content']",
    "('<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' if message.reasoning_content else '') "
    "+ message['content']",
)
"""A template with a place for `reasoning_content`."""


def encoder(source: str, reasoning: Reasoning = "keep", **variables: Any) -> Encoder:
    tokenizer = tokenizer_of("bytes", "<s>", "<|im_end|>", ["<|im_start|>"])
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    template = ChatTemplate(source, special_tokens=names, chat_template_kwargs=variables)
    return Encoder(template, tokenizer, reasoning=reasoning)


def trained(encoder: Encoder, row: Row) -> list[tuple[str, str]]:
    """The end of the context and the graded text of each sequence, proved by the certificate."""
    examples = encoder.encode(row)
    assert verify(encoder, row, examples) == []
    found = []
    for example in examples:
        first = next(at for at, weight in enumerate(example.weights) if weight)
        graded = [i for i, w in zip(example.input_ids, example.weights, strict=True) if w]
        found.append((encoder.decode(example.input_ids[:first])[-20:], encoder.decode(graded)))
    return found


def refusal(encoder: Encoder, row: Row) -> RowRefused:
    with pytest.raises(RowRefused) as caught:
        encoder.encode(row)
    return caught.value


def test_a_reply_that_thinks_inline_is_kept_whole_behind_the_tag_that_the_prompt_opens() -> None:
    ((context, graded),) = trained(encoder(OPENS), chat(user("u"), assistant(INLINE)))
    assert context.endswith("assistant\n<think>\n")
    assert graded == "why\n</think>\n\nso<|im_end|>"


def test_a_reply_that_only_closes_the_block_is_not_given_a_second_one() -> None:
    ((_, graded),) = trained(encoder(OPENS), chat(user("u"), assistant("why\n</think>\n\nso")))
    assert graded == "why\n</think>\n\nso<|im_end|>"


def test_a_reply_without_reasoning_behind_an_opened_block_follows_the_recipe() -> None:
    row = chat(user("u"), assistant("so"))
    for reasoning in ("keep", "refuse", "off"):
        refused = refusal(encoder(OPENS, reasoning), row)
        assert refused.reason == "reasoning does not fit the prompt" and "message 1" in refused.detail
    ((context, graded),) = trained(encoder(OPENS, "empty"), row)
    assert (context[-8:], graded) == ("<think>\n", "\n</think>\n\nso<|im_end|>")


def test_refuse_takes_no_row_without_reasoning_even_where_the_template_would_fill_the_block() -> None:
    fills = CHATML.replace("<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n' }}").replace(
        "message['content']",
        "('<think>\\n\\n</think>\\n\\n' if message.role == 'assistant' and '<think>' not in message['content'] "
        "else '') + message['content']",
    )
    row = chat(user("u"), assistant("so"))
    assert trained(encoder(fills), row) == [
        ("_start|>assistant\n<think>\n"[-20:], "\n</think>\n\nso<|im_end|>")
    ]
    assert refusal(encoder(fills, "refuse"), row).reason == "reasoning does not fit the prompt"
    assert trained(encoder(fills, "refuse"), chat(user("u"), assistant(INLINE)))


def test_off_turns_the_templates_own_switch_and_leaves_out_what_rows_thought() -> None:
    off = encoder(SWITCHED, "off")
    assert off.template is not None and off.template.chat_template_kwargs == {"enable_thinking": False}
    ((context, graded),) = trained(off, chat(user("u"), assistant(INLINE)))
    assert context.endswith("<think>\n\n</think>\n\n") and graded == "so<|im_end|>"
    assert off.counts["reasoning_left_out"] == 1
    # Served in the same way: what is asked is asked with the switch off, history without its reasoning.
    history = [user("u"), assistant(INLINE), user("v")]
    assert off.decode(off.prompt_ids(history)).count("why") == 0


def test_reasoning_that_the_prompt_has_closed_already_is_refused() -> None:
    refused = refusal(encoder(SWITCHED, enable_thinking=False), chat(user("u"), assistant(INLINE)))
    assert refused.reason == "reasoning does not fit the prompt"


def test_a_rows_own_variables_switch_its_template() -> None:
    row = chat(user("u"), assistant("so"))
    assert isinstance(row.content, Conversation)
    content = Conversation(row.content.messages, variables={"enable_thinking": False})
    ((context, _),) = trained(encoder(SWITCHED), Row(0, 0, row.origin, content))
    assert context.endswith("</think>\n\n")


def test_reasoning_in_its_field_is_trained_where_the_template_has_a_place_for_it_and_refused_where_not() -> (
    None
):
    row = chat(user("u"), assistant("so", reasoning_content="why"))
    assert trained(encoder(FIELD), row)[0][1] == "<think>\nwhy\n</think>\n\nso<|im_end|>"
    assert refusal(encoder(CHATML), row).reason == "reasoning not found in the render"
    assert trained(encoder(CHATML, "off"), row)[0][1] == "so<|im_end|>"


def test_earlier_reasoning_that_history_drops_is_trained_in_a_view_of_its_own_and_counted() -> None:
    forgetful = CHATML.replace(
        "message['content']",
        "(message['content'] if loop.last else message['content'].split('</think>')[-1].lstrip())",
    )
    subject = encoder(forgetful)
    first, second = trained(subject, chat(user("u"), assistant(INLINE), user("v"), assistant(INLINE)))
    assert first[1] == second[1] == INLINE + "<|im_end|>"
    assert subject.counts["forgotten_reasoning"] == 1


@pytest.mark.parametrize(
    ("prompt", "block"),
    [
        ("x<think>\n", "<think>\n"),
        ("x<think>", "<think>"),
        ("x<think>\n\n</think>\n\n", None),
        ("[THINK]", "[THINK]"),
        ("<seed:think>\n", "<seed:think>\n"),
        ("◁think▷", "◁think▷"),
        ("<|im_start|>assistant\n", None),
    ],
)
def test_an_opened_block_is_the_last_thing_of_a_prompt(prompt: str, block: str | None) -> None:
    assert opened_by(prompt) == block


def test_blocks_are_told_from_headers_and_open_from_closed() -> None:
    assert is_block("<think>\n") and is_block("<|channel>thought\n<channel|>") and is_block("<think></think>")
    assert (
        not is_block("<|im_start|>assistant\n<think>\n")
        and not is_block("</think>\n")
        and not is_block("think")
    )
    assert is_closed("<think>\n\n</think>") and not is_closed("<think>\n")
    assert (closing_of("<think>"), closing_of("[THINK]"), closing_of("◁think▷")) == (
        "</think>",
        "[/THINK]",
        "◁/think▷",
    )
    assert (emptied("<think>\n"), emptied("<think>")) == ("\n</think>\n\n", "</think>\n\n")
    assert with_opening("a</think>b", "<think>\n") == "<think>\na</think>b"
    assert with_opening("<think>a</think>b", "<think>\n") == "<think>a</think>b"
    assert (
        after_opening("<think>\nwhy</think>", "<think>\n") == 8 and after_opening("so", "<think>\n") is None
    )


def test_leaving_reasoning_out_touches_only_what_the_assistant_thought() -> None:
    messages = [
        user(INLINE),
        assistant(INLINE),
        assistant("so", thinking="why", reasoning_content="why"),
        assistant("plain"),
    ]
    plain, changed = without_reasoning(Conversation(messages))
    assert [m["content"] for m in plain.messages] == [INLINE, "so", "so", "plain"]
    assert changed == 2 and not any(map(has_reasoning, plain.messages[1:]))
    assert messages[1]["content"] == INLINE
