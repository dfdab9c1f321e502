"""Defects of a mask that peers have shipped, planted one by one: the certificate sees each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from burnish.chat import certificate
from burnish.chat.certificate import CODES, verify
from burnish.chat.encode import Encoder
from burnish.chat.template import CHATML, ChatTemplate
from burnish.types import Completion, Conversation, Document, Example, Row
from tests.chat.families import FAMILIES, assistant, chat, family, row, tokenizer_of, user

PROMPTED = CHATML.replace(
    "<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"
)
"""Its prompt brings an empty think block, its history none, as Qwen3.5 without thinking."""

TALK = chat(
    {"role": "system", "content": "Be terse."},
    user("Hello there, how are you?"),
    assistant("The cat sat on the mat."),
    user("yes or no"),
    assistant("no, they are 4 9 7 5 3"),
)


def encoder_of(name: str) -> Encoder:
    if name == "prompted":
        tokenizer = tokenizer_of("bytes", "<s>", "<|im_end|>", ["<|im_start|>"])
        return Encoder(
            ChatTemplate(PROMPTED, special_tokens={"bos_token": "<s>", "eos_token": "<|im_end|>"}), tokenizer
        )
    template, tokenizer = family(name)
    return Encoder(template, tokenizer)


def first_graded(example: Example) -> int:
    return next(at for at, weight in enumerate(example.weights) if weight)


def weighted(example: Example, weights: list[float]) -> Example:
    return replace(example, weights=weights)


def off_by_one(example: Example, encoder: Encoder) -> Example:
    return weighted(example, [0.0, *example.weights[:-1]])


def off_by_one_back(example: Example, encoder: Encoder) -> Example:
    return weighted(example, [*example.weights[1:], 0.0])


def stop_not_graded(example: Example, encoder: Encoder) -> Example:
    return weighted(example, [*example.weights[:-1], 0.0])


def header_graded(example: Example, encoder: Encoder) -> Example:
    at = first_graded(example)
    return weighted(example, [*example.weights[: at - 1], 1.0, *example.weights[at:]])


def pad_is_eos(example: Example, encoder: Encoder) -> Example:
    return weighted(
        example,
        [
            0.0 if i in encoder.stop_ids else w
            for i, w in zip(example.input_ids, example.weights, strict=True)
        ],
    )


def mask_dropped(example: Example, encoder: Encoder) -> Example:
    return weighted(example, [0.0] + [1.0] * (len(example) - 1))


def user_graded(example: Example, encoder: Encoder) -> Example:
    return weighted(example, [1.0 if 0 < at < 9 else w for at, w in enumerate(example.weights)])


def bos_twice(example: Example, encoder: Encoder) -> Example:
    return replace(
        example, input_ids=[example.input_ids[0], *example.input_ids], weights=[0.0, *example.weights]
    )


def prompt_block_graded(example: Example, encoder: Encoder) -> Example:
    at = first_graded(example)
    block = len(encoder.prompt_ids([user("")])) - 6
    assert block > 0
    return weighted(example, [*example.weights[: at - 5], *[1.0] * 5, *example.weights[at:]])


def cut_answer(example: Example, encoder: Encoder) -> Example:
    end = len(example) - 2
    return replace(example, input_ids=example.input_ids[:end], weights=example.weights[:end])


def cut_inside(example: Example, encoder: Encoder) -> Example:
    at = first_graded(example) + 1
    ids, weights = example.input_ids, example.weights
    return replace(example, input_ids=ids[:at] + ids[at + 2 :], weights=weights[:at] + weights[at + 2 :])


def other_weight(example: Example, encoder: Encoder) -> Example:
    return weighted(example, [0.5 * weight for weight in example.weights])


def shifted_ids(example: Example, encoder: Encoder) -> Example:
    return replace(example, input_ids=[*example.input_ids[1:], example.input_ids[0]])


def trained_after_the_end(example: Example, encoder: Encoder) -> Example:
    return replace(
        example, input_ids=[*example.input_ids, example.input_ids[1]], weights=[*example.weights, 1.0]
    )


DEFECTS: dict[Callable[[Example, Encoder], Example], set[str]] = {
    off_by_one: {certificate.REPLY_NOT_GRADED, certificate.STOP_NOT_GRADED},
    off_by_one_back: {certificate.PROMPT_GRADED, certificate.STOP_NOT_GRADED},
    stop_not_graded: {certificate.STOP_NOT_GRADED},
    header_graded: {certificate.PROMPT_GRADED},
    pad_is_eos: {certificate.STOP_NOT_GRADED},
    mask_dropped: {certificate.PROMPT_GRADED},
    user_graded: {certificate.PROMPT_GRADED},
    bos_twice: {certificate.TWO_BOS, certificate.CONTEXT},
    prompt_block_graded: {certificate.PROMPT_GRADED},
    cut_answer: {certificate.NO_STOP},
    cut_inside: {certificate.REPLY_MISSING},
    other_weight: {certificate.WRONG_WEIGHT},
    shifted_ids: {certificate.CONTEXT},
    trained_after_the_end: {certificate.GRADED_AFTER},
}


@pytest.mark.parametrize("name", [*(n for n in FAMILIES if n != "Gemma"), "prompted"])
def test_what_is_encoded_has_no_violation(name: str) -> None:
    encoder = encoder_of(name)
    examples = encoder.encode(TALK)
    assert verify(encoder, TALK, examples) == []
    assert sum(example.num_graded for example in examples) > 5


@pytest.mark.parametrize("name", ["ChatML", "Llama-3", "Llama-2", "prompted"])
@pytest.mark.parametrize("plant", DEFECTS, ids=lambda plant: plant.__name__)
def test_a_planted_defect_is_seen(plant: Callable[[Example, Encoder], Example], name: str) -> None:
    encoder = encoder_of(name)
    *earlier, last = encoder.encode(TALK)
    codes = {violation.code for violation in verify(encoder, TALK, [*earlier, plant(last, encoder)])}
    assert codes & DEFECTS[plant]


def test_a_turn_that_is_left_out_or_graded_unasked_is_seen() -> None:
    encoder = encoder_of("ChatML")
    (example,) = encoder.encode(TALK)
    silenced = chat(
        *[
            {**m, "train": False} if m.get("content", "").startswith("no,") else m
            for m in TALK.content.messages
        ]
    )  # type: ignore[union-attr]
    assert certificate.TURN_UNASKED in {v.code for v in verify(encoder, silenced, [example])}
    assert [v.code for v in verify(encoder, TALK, [])] == [certificate.TURN_MISSING] * 2


def test_an_answer_that_says_it_was_cut_needs_no_stop_token() -> None:
    encoder = encoder_of("ChatML")
    (example,) = encoder.encode(TALK)
    assert verify(encoder, TALK, [replace(cut_answer(example, encoder), cut=2)]) == []


@pytest.mark.parametrize(
    "content", [Completion("Q: 1\nA:", " yes no"), Completion("", "yes"), Document("The cat.")]
)
def test_text_is_graded_behind_its_prompt_to_the_end_of_text(content: Completion | Document) -> None:
    template, tokenizer = family("ChatML")
    encoder = Encoder(template, tokenizer)
    given = row(content)
    (example,) = encoder.encode(given)
    assert verify(encoder, given, [example]) == []
    for plant in (stop_not_graded, cut_answer, off_by_one):
        assert verify(encoder, given, [plant(example, encoder)]), plant
    if isinstance(content, Completion) and content.prompt:
        assert verify(encoder, given, [header_graded(example, encoder)])


def test_a_violation_names_row_message_and_what_was_seen() -> None:
    encoder = encoder_of("ChatML")
    (example,) = encoder.encode(TALK)
    (violation,) = verify(encoder, replace_index(TALK, 7), [stop_not_graded(example, encoder)])
    assert (violation.row, violation.message) == (7, 4) and violation.detail
    assert violation.code in CODES


def replace_index(given: Row, index: int) -> Row:
    assert isinstance(given.content, Conversation)
    return replace(given, index=index)
