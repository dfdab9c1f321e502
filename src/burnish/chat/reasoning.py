"""What is done where the generation prompt and the row disagree about reasoning.

prompt  ...<|im_start|>assistant\\n<think>\\n         opens a block: the model's first words are its reasoning
prompt  ...assistant\\n<think>\\n\\n</think>\\n\\n      opened and closed: the model is not to reason

keep     the row's reasoning is what is trained; a row that cannot be trained so is refused
empty    a row without reasoning closes the block at once
off      the template's own switch is turned off, and the rows' reasoning is left out
refuse   a row without reasoning is refused where the prompt opens a block, even if the template would fill it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from burnish.chat.refusal import RowRefused
from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.types import REASONING_KEYS, Conversation, Message

Reasoning = Literal["keep", "empty", "off", "refuse"]

_NAME = re.compile(r"think|thought|reason", re.IGNORECASE)
TAG = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,}\]|◁[^◁▷\s]{1,40}▷")
_OPENING = re.compile(
    r"(<(?!/)[^<>\s|]*(?:think|thought|reason)[^<>\s|]*>|\[THINK\]|◁think▷)\s*$", re.IGNORECASE
)
_CLOSING = re.compile(
    r"(</[^<>\s|]*(?:think|thought|reason)[^<>\s|]*>|\[/THINK\]|◁/think▷)\s*$", re.IGNORECASE
)
_INLINE = re.compile(
    r"\s*(?:<(?P<name>[\w:]*(?:think|thought|reason)\w*)>(?:(?!</(?P=name)>).)*</(?P=name)>"
    r"|\[THINK\](?:(?!\[/THINK\]).)*\[/THINK\])\s*",
    re.IGNORECASE | re.DOTALL,
)

SWITCHES: tuple[tuple[str, Any], ...] = (
    ("enable_thinking", False),
    ("thinking", False),
    ("enable_reasoning", False),
    ("reasoning_effort", "none"),
    ("thinking_budget", 0),
)
"""The variables by which known templates turn reasoning off, each with the value that does."""


def turned_off(template: ChatTemplate) -> ChatTemplate:
    """The template with its own switch for reasoning off, where it has one that changes what it is asked with."""
    asked: list[Message] = [{"role": "user", "content": "Question"}]
    try:
        usual = template.render(asked, add_generation_prompt=True)
        for name, value in SWITCHES:
            if name in template.source and name not in template.chat_template_kwargs:
                other = template.given({name: value})
                if other.render(asked, add_generation_prompt=True) != usual:
                    return other
    except TemplateRefusal:
        pass
    return template


def without_reasoning(conversation: Conversation) -> tuple[Conversation, int]:
    """The conversation with the assistant's reasoning left out, and how many messages had any."""
    messages = [
        _plain(message) if message.get("role") == "assistant" else message
        for message in conversation.messages
    ]
    changed = sum(new is not old for new, old in zip(messages, conversation.messages, strict=True))
    return Conversation(messages, conversation.tools, conversation.documents, conversation.variables), changed


def _plain(message: Message) -> Message:
    content = message.get("content")
    end = inline_block(content)
    if not end and not any(key in message for key in REASONING_KEYS):
        return message
    plain = {key: value for key, value in message.items() if key not in REASONING_KEYS}
    return {**plain, "content": content[end:]} if end and isinstance(content, str) else plain


def has_reasoning(message: Mapping[str, Any]) -> bool:
    """Whether an assistant message says what it thought: in a field, or in its content, in tags."""
    return any(message.get(key) for key in REASONING_KEYS) or inline_block(message.get("content")) > 0


def opened_by(prompt: str) -> str | None:
    """The tag of a reasoning block that a prompt opens and leaves open, with the whitespace after it."""
    found = _OPENING.search(prompt)
    return found and found[0]


def closed_by(prompt: str) -> str:
    """The tag with which a prompt closes a reasoning block as its last word; "" where it does not."""
    found = _CLOSING.search(prompt)
    return found[0].strip() if found else ""


def is_block(text: str) -> bool:
    """Whether the end of a prompt, from one of its tags on, is a reasoning block, open or closed."""
    # "<|channel>thought\n<channel|>" has its name right behind the tag; "<|im_start|>assistant\n<think>" is a header.
    first = TAG.match(text)
    return first is not None and not _closes(first[0]) and bool(_NAME.search(text.split(maxsplit=1)[0]))


def is_reasoning_tag(token: str) -> bool:
    """Whether a token opens or closes what was thought: "<think>", "</think>", "[/THINK]"."""
    return bool(TAG.fullmatch(token)) and bool(_NAME.search(token)) and "|" not in token


def is_closed(block: str) -> bool:
    """Whether a block has its closing tag too: "<think>\\n\\n</think>\\n\\n", "<|channel>thought\\n<channel|>"."""
    return len(TAG.findall(block)) > 1


def with_opening(content: str, block: str) -> str:
    """A reply that only closes the block, "why</think>so", with the tag that the prompt gives it put before."""
    opening = TAG.findall(block)[0]
    closing = closing_of(opening)
    return block + content if closing in content and opening not in content.partition(closing)[0] else content


def after_opening(content: str, block: str) -> int | None:
    """Where a reply goes on after the opened block that it begins with; None where it does not begin with it."""
    opening = TAG.findall(block)[0]
    bare = content.lstrip()
    if not bare.startswith(opening) or closing_of(opening) not in bare:
        return None
    start = len(content) - len(bare) + len(opening)
    # Prompt "<think>\n", reply "<think>\nwhy": the newline is fed already.
    return start + 1 if block.endswith("\n") and content[start : start + 1] == "\n" else start


def inline_block(content: object) -> int:
    """Where the reasoning that a reply begins with ends, its tags included; 0 where it begins with none."""
    found = _INLINE.match(content) if isinstance(content, str) else None
    return found.end() if found else 0


def closing_of(opening: str) -> str:
    """The tag that ends a block: "<think>" -> "</think>", "[THINK]" -> "[/THINK]"."""
    return opening[0] + "/" + opening[1:]


def emptied(block: str) -> str:
    """What ends an opened block with nothing in it: "<think>\\n" -> "\\n</think>\\n\\n"."""
    closing = closing_of(TAG.findall(block)[0])
    return f"\n{closing}\n\n" if block.endswith("\n") else f"{closing}\n\n"


def refuse_disagreement(index: int, detail: str) -> RowRefused:
    """The refusal of a row whose reply cannot follow the prompt's reasoning block."""
    return RowRefused("reasoning does not fit the prompt", f"message {index}: {detail}")


def _closes(tag: str) -> bool:
    return tag[1:2] == "/"
