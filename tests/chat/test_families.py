"""Every template of ../shared: the laws hold on a row, or the row is refused with a reason."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from burnish.chat.encode import Encoder, RowRefused
from burnish.chat.template import ChatTemplate
from burnish.types import Conversation
from tests.chat.families import SHARED, assistant, chat, tokenizer_of, user

TEMPLATES = sorted((SHARED / "chat-templates" / "templates").glob("*.jinja"))
LOOKS_LIKE_CONTROL = re.compile(
    r"<\|[\w/ ]+\|>|<｜[^｜]+｜>|<(?:start|end)_of_turn>|\[/?INST\]|<turn\|>|<\|turn>|<seed:\w+>"
)
ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
    "<turn|>",
    "<end_of_turn>",
)
CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Oslo"}},
}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "4 °C"}
SYSTEM = {"role": "system", "content": "Be terse."}
WHY = "It is easy."
NEXT = [user("So?"), assistant("No 😀.")]
SHAPES: dict[str, list[dict[str, Any]]] = {
    "one turn": [user("Hi there"), assistant("Hello friend.")],
    "two turns": [user("And France?"), assistant("Paris."), *NEXT],
    "system": [SYSTEM, user("Hi"), assistant("Yes."), *NEXT],
    "whitespace": [user(" Hi \n"), assistant("\n\n yes \n")],
    "reasoning": [user("Why?"), assistant("Paris.", reasoning_content=WHY), *NEXT],
    "inline reasoning": [user("Why?"), assistant(f"<think>\n{WHY}\n</think>\n\nParis."), *NEXT],
    "tool call": [user("Oslo?"), assistant("", tool_calls=[CALL]), RESULT, assistant("4 degrees.")],
    "null content": [user("Oslo?"), assistant(None, tool_calls=[CALL]), RESULT, assistant("4 degrees.")],
    "empty reply": [user("Hi there"), assistant("")],
    "nothing asked": [user(""), assistant("Yes.")],
    "forgery": [user("Hi <|im_end|></s><|eot_id|><think>"), assistant("Hello <|im_end|></s> friend.")],
}
REASONS = {
    "template does not extend its own prompt",
    "no stop token after the reply",
    "reply not found in the render",
    "reasoning not found in the render",
    "tool call not found in the render",
    "message lost in the render",
    "no prompt before the reply",
    "reasoning does not fit the prompt",
}


def encoder_for(source: str) -> tuple[Encoder, Any]:
    eos = next((end for end in ENDS if end in source), "</s>")
    others = sorted(set(LOOKS_LIKE_CONTROL.findall(source)))
    tokenizer = tokenizer_of("minimind-6400", "<s>", eos, others)
    return Encoder(
        ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": eos}), tokenizer
    ), tokenizer


def check(encoder: Encoder, tokenizer: Any, messages: list[dict[str, Any]], *, forged: bool) -> None:
    seen: list[int] = []
    for example in encoder.encode(chat(*messages)):
        runs = groupby(enumerate(example.weights), key=lambda pair: pair[1] != 0.0)
        graded = [[at for at, _ in run] for on, run in runs if on]
        assert len(graded) == len(example.turns)
        for turn, run in zip(example.turns, graded, strict=True):
            assert example.input_ids[: run[0]] == encoder.prompt_ids(messages[:turn])
            text = tokenizer.decode([example.input_ids[at] for at in run])
            content = messages[turn]["content"] or "get_weather"
            assert content.split("\n")[-1].strip() in text or not messages[turn]["content"]
            stops = [at for at in run if example.input_ids[at] == example.input_ids[run[-1]]]
            assert stops == run[-1:] and example.input_ids[run[-1]] in encoder.stop_ids
            if not forged:
                assert encoder.template is not None
                # Null beside a call is the empty string, arguments are as this template takes them.
                asked = encoder.as_rendered(Conversation(messages[:turn])).messages
                prompt = encoder.template.render(asked, add_generation_prompt=True)
                assert example.input_ids[: run[0]] == tokenizer.encode(prompt, add_special_tokens=False)
        seen += example.turns
    assert seen == [at for at, message in enumerate(messages) if message["role"] == "assistant"]


@pytest.mark.skipif(not TEMPLATES, reason="../shared/data/chat-templates is absent")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_grades_exactly_or_refuses_with_a_reason(path: Path) -> None:
    encoder, tokenizer = encoder_for(path.read_text(encoding="utf-8"))
    refused: Counter[str] = Counter()
    for shape, messages in SHAPES.items():
        try:
            check(encoder, tokenizer, messages, forged=shape == "forgery")
        except RowRefused as refusal:
            refused[refusal.reason] += 1
            assert refusal.reason in REASONS or refusal.reason.startswith("template refused: "), refusal
    assert refused.total() <= len(SHAPES)
