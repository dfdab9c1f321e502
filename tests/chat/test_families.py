"""Every template of ../shared: the laws hold on a row, or the row is refused with a reason."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from burnish.chat.refusal import RowRefused
from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.types import Conversation
from tests.chat.zoo import REASONS, SHAPES, TEMPLATES, TOKENIZERS, assert_laws, conversations, encoder_for

needs_templates = pytest.mark.skipif(not TEMPLATES, reason="../shared/data/chat-templates is absent")
every_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)

NO_PLACE = {
    "null content": {"tool call not found in the render", "no stop token after the reply"},
    "tool call": {"tool call not found in the render", "no stop token after the reply"},
}


def refused_shapes(path: Path, kind: str) -> dict[str, str]:
    encoder, tokenizer = encoder_for(path, kind)
    refused: dict[str, str] = {}
    for shape, conversation in SHAPES.items():
        try:
            assert_laws(encoder, tokenizer, conversation, forged=shape.startswith("forge"))
        except RowRefused as refusal:
            refused[shape] = refusal.reason
            assert refusal.reason in REASONS or refusal.reason.startswith("template refused: "), refusal
    return refused


@needs_templates
@every_template
def test_a_template_grades_exactly_or_refuses_with_a_reason(path: Path) -> None:
    refused = refused_shapes(path, "minimind-6400")
    plain = {"one turn", "two turns", "whitespace", "newline first", "emoji", "weights"}
    if path.stem not in WITHOUT_A_PLAIN_TURN:
        assert not plain & refused.keys()


WITHOUT_A_PLAIN_TURN = {
    "chujiezheng__falcon-instruct": "a turn ends in two newlines, and nothing tells a model to stop",
    "llamacpp__llama-cpp-rwkv-world": "a turn ends in two newlines, and nothing tells a model to stop",
    "openinstruct__assistant_message_only": "the user's message is not in the prompt",
    "llamacpp__Apriel-1.6-15b-Thinker-fixed": "every prompt begins a reasoning that these rows lack",
    "llamacpp__deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "every prompt opens a reasoning block",
    "openinstruct__olmo_thinker": "every prompt opens a reasoning block",
    "openinstruct__r1_simple_chat_postpend_think": "every prompt opens a reasoning block",
    "trl__deepseekv3": "every prompt opens a reasoning block",
    "trl__deepseekv3_training": "every prompt opens a reasoning block",
}
"""The nine templates that cannot be trained on a plain question and answer, and why."""


@needs_templates
@every_template
def test_render_and_trace_are_what_transformers_renders_to_the_byte(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    template = ChatTemplate(source, special_tokens=names, date=datetime.date.today())
    for shape, conversation in SHAPES.items():
        messages = [{k: v for k, v in m.items() if k != "weight"} for m in conversation.messages]
        for prompted in (False, True):
            expected: list[str] | None
            try:
                expected, _ = render_jinja_template(
                    [_as_transformers_does(messages)],
                    tools=conversation.tools,
                    chat_template=source,
                    add_generation_prompt=prompted,
                    **names,
                )
            except Exception:
                expected = None
            for render in (template.render, lambda *a, **k: template.trace(*a, **k).text):
                if expected is None:
                    with pytest.raises(TemplateRefusal):
                        render(messages, conversation.tools, add_generation_prompt=prompted)
                else:
                    assert [
                        render(messages, conversation.tools, add_generation_prompt=prompted)
                    ] == expected, shape


def _as_transformers_does(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`apply_chat_template` of transformers 5.23 drops nulls before it renders; `render_jinja_template` does not."""
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


MARKED = [path for path in TEMPLATES if "generation %}" in path.read_text(encoding="utf-8")]

JUSTIFIED = {
    "trl__deepseekv3_training": "its marks begin before the header <｜Assistant｜>, which the prompt supplies",
    "trl__diffusion_gemma_training": "its marks leave the reply out, and hold only what follows it",
}


@needs_templates
@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.stem)
def test_generation_marks_agree_but_for_what_the_prompt_supplies_and_what_follows_the_stop(
    path: Path,
) -> None:
    encoder, tokenizer = encoder_for(path)
    compared = 0
    for conversation in SHAPES.values():
        try:
            ours = encoder._graded(conversation)[1][-1]
            rendered, spans = render_jinja_template(
                [_as_transformers_does(encoder.as_rendered(conversation).messages)],
                tools=conversation.tools,
                chat_template=path.read_text(encoding="utf-8"),
                return_assistant_tokens_mask=True,
                bos_token="<s>",
                eos_token=tokenizer.eos_token,
            )
        except Exception:
            continue
        if path.stem in JUSTIFIED or "\ue000" in ours.completion:
            continue
        start, end = spans[0][-1]
        marked = rendered[0][start:end]
        # TRL also grades the newline after the stop token, which nobody generates, and the block of the prompt.
        supplied = marked[: marked.rindex(ours.completion)] if ours.completion in marked else None
        assert supplied is not None and ours.context.rstrip().endswith(supplied.rstrip())
        assert marked[len(supplied) + len(ours.completion) :] in ("", "\n")
        compared += 1
    assert compared >= 5 or path.stem in JUSTIFIED


@needs_templates
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.sampled_from(TEMPLATES or [Path()]), conversations())
def test_any_conversation_is_graded_exactly_or_refused(path: Path, conversation: Conversation) -> None:
    hold_or_refuse(path, "minimind-6400", conversation)


def hold_or_refuse(path: Path, kind: str, conversation: Conversation) -> str:
    encoder, tokenizer = encoder_for(path, kind)
    try:
        assert_laws(encoder, tokenizer, conversation, forged=True)
    except RowRefused as refusal:
        assert refusal.reason in REASONS or refusal.reason.startswith("template refused: "), refusal
        return refusal.reason
    return "graded"


@pytest.mark.slow
@needs_templates
def test_no_violation_in_20000_conversations_over_all_templates_and_four_tokenizers() -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(TEMPLATES), st.sampled_from(TOKENIZERS), conversations())
    def campaign(path: Path, kind: str, conversation: Conversation) -> None:
        outcomes[hold_or_refuse(path, kind, conversation)] += 1

    campaign()
    print(outcomes)
    assert outcomes["graded"] >= 5_000


@pytest.mark.slow
@needs_templates
@every_template
@pytest.mark.parametrize("kind", TOKENIZERS[1:])
def test_every_tokenizer_refuses_the_same_shapes(path: Path, kind: str) -> None:
    refused = refused_shapes(path, kind)
    assert refused.keys() == refused_shapes(path, "minimind-6400").keys()
