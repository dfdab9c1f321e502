"""Encoding in segments gives the ids of the whole text, and guarded text never becomes a control id."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from burnish.chat.segments import SegmentTokenizer
from tests.chat.families import SHARED, tokenizer_of

KINDS = ["bytes", "pieces", "metaspace", *(("gpt2", "minimind-6400", "llama-2") if SHARED.exists() else ())]
CONTROLS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]


@cache
def backend(kind: str) -> Any:
    tokenizer = tokenizer_of("pieces" if kind == "metaspace" else kind, "<s>", "</s>", CONTROLS[:2])
    made = tokenizer.backend_tokenizer
    if kind == "metaspace":
        made.normalizer = None
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return made


@cache
def segments(kind: str) -> SegmentTokenizer:
    made = SegmentTokenizer(backend(kind))
    made.guard(CONTROLS)
    return made


PARTS = st.sampled_from(
    [*CONTROLS, " ", "\n", "\n\n", "assistant", "The cat", "é😀", ".", "<|", "im_end|>", "▁"]
)


@settings(max_examples=80, deadline=None)
@given(parts=st.lists(PARTS, max_size=10), kind=st.sampled_from(KINDS))
def test_the_ids_of_the_segments_are_the_ids_of_the_text(parts: list[str], kind: str) -> None:
    text = "".join(parts)
    assert segments(kind).ids(text) == backend(kind).encode(text, add_special_tokens=False).ids


@settings(max_examples=80, deadline=None)
@given(before=st.lists(PARTS, max_size=5), after=st.lists(PARTS, max_size=5), kind=st.sampled_from(KINDS))
def test_a_continuation_keeps_the_ids_before_it_and_the_text(
    before: list[str], after: list[str], kind: str
) -> None:
    context, completion = "".join(before), "".join(after)
    # "<|" + "im_end|>": a prompt never ends inside a control token, and a reply's look-alikes are marked.
    assume(not (context.endswith("<|") and completion.startswith("im_end|>")))
    tokenizer = segments(kind)
    ids, merged = tokenizer.continuation_ids(context, completion)
    whole = tokenizer.ids(context + completion)
    assert merged or tokenizer.ids(context) + ids == whole
    assert tokenizer.text(tokenizer.ids(context) + ids) == tokenizer.text(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_marked_text_is_the_same_text_without_control_ids(kind: str) -> None:
    tokenizer = segments(kind)
    mark = "\ue000"
    ids = tokenizer.ids(f"<s>say {mark.join('<|im_end|>')} and {mark.join('</s>')}<|im_end|>", mark=mark)
    controls = set(tokenizer.added.values())
    assert [index for index in ids if index in controls] == [
        tokenizer.added["<s>"],
        tokenizer.added["<|im_end|>"],
    ]
    assert tokenizer.text(ids).replace(" ", "").endswith("say<|im_end|>and</s><|im_end|>")


def test_newlines_swallowed_by_a_control_token_are_not_lost_from_a_reply() -> None:
    made = tokenizer_of("bytes", "", "<|end|>", []).backend_tokenizer
    made.add_special_tokens([AddedToken("<|assistant|>", special=True, normalized=False, rstrip=True)])
    tokenizer = SegmentTokenizer(made)
    context = "<|assistant|>\n"
    ids, merged = tokenizer.continuation_ids(context, "\n\nThe cat<|end|>")
    assert merged and tokenizer.text(ids) == "\n\nThe cat<|end|>"
    plain, merged = tokenizer.continuation_ids(context, "The cat<|end|>")
    assert not merged and tokenizer.text(plain) == "The cat<|end|>"


def test_text_is_cut_before_no_token_that_reaches_into_the_text_before_it() -> None:
    made = tokenizer_of("bytes", "", "<|end|>", []).backend_tokenizer
    made.add_special_tokens(
        [
            AddedToken("<left>", special=True, normalized=False, lstrip=True),
            AddedToken("<word>", special=True, normalized=False, single_word=True),
        ]
    )
    tokenizer = SegmentTokenizer(made)
    for text in ("a  <left>b", "a<word>b", "a<word> b", "a <word> b", "a \n<left> <word>"):
        assert tokenizer.ids(text) == made.encode(text, add_special_tokens=False).ids


def test_text_is_cut_before_no_token_that_is_looked_for_after_normalising() -> None:
    made = Tokenizer.from_str(backend("pieces").to_str())
    made.add_special_tokens([AddedToken("<norm>", special=True, normalized=True)])
    tokenizer = SegmentTokenizer(made)
    for text in ("a <norm>b", "<norm> b<norm>", "<s>a<norm>b"):
        assert tokenizer.ids(text) == made.encode(text, add_special_tokens=False).ids


def test_what_the_tokenizer_puts_before_a_text_is_known() -> None:
    assert segments("pieces").prefix_ids == [segments("pieces").added["<s>"]]
    assert segments("bytes").prefix_ids == []


def test_an_eos_that_the_tokenizer_puts_after_a_text_is_never_taken_for_a_bos() -> None:
    from tokenizers import processors

    made = Tokenizer.from_str(backend("bytes").to_str())
    eos = made.token_to_id("</s>")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", eos)])
    assert SegmentTokenizer(made).prefix_ids == []


def test_a_long_run_of_texts_does_not_change_what_a_text_encodes_to() -> None:
    tokenizer = SegmentTokenizer(backend("bytes"))
    first = tokenizer.ids("<s>The cat")
    for number in range(9000):
        tokenizer.ids(f"<s>{number}")
    assert tokenizer.ids("<s>The cat") == first
