"""What a row says, as text: its prompts, its responses or both, and the form in which two rows are compared.

Conversation([user "Hi\\u00a0 THERE", assistant "Hello!"])  ->  both: "hi there", "hello!"
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Literal, get_args

import orjson

from burnish.errors import UsageError
from burnish.types import REASONING_KEYS, Completion, Content, Conversation, Document, Message

Part = Literal["both", "prompts", "responses"]


def as_part(word: str) -> Part:
    """The word as a part of a row, or the usage error that lists the parts."""
    for part in get_args(Part):
        if word == part:
            return part  # type: ignore[no-any-return]
    raise UsageError(
        f"--on {word!r}",
        rule=f"rows are compared on {', '.join(get_args(Part))}",
        remedy="write --on both",
    )


def texts_of(content: Content, part: Part = "both") -> list[str]:
    """The texts of a row in order: what was said, and as JSON the tools that were offered or called."""
    match content:
        case Document(text):
            return [] if part == "prompts" else [text]
        case Completion(prompt, completion):
            return {"both": [prompt, completion], "prompts": [prompt], "responses": [completion]}[part]
        case Conversation():
            return _said(content, part)


def normal(text: str) -> str:
    """NFKC, one case, single spaces: `Ｈｉ\\u00a0 There` and `hi there` are the same."""
    # Most text is ASCII, which NFKC leaves as it is, and lower() is casefold() there at twice the speed.
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def prompt_of(content: Content) -> str:
    """The row's prompts as one text."""
    return "\n\n".join(texts_of(content, "prompts"))


def response_of(content: Content) -> str:
    """The row's responses as one text."""
    return "\n\n".join(texts_of(content, "responses"))


def _said(content: Conversation, part: Part) -> list[str]:
    said: list[str] = []
    for message in content.messages:
        if part == "both" or (message["role"] == "assistant") == (part == "responses"):
            if len(message) > 2:
                said += _beside(message)
            said.append(message["content"])
    if part != "responses":
        for offered in (content.tools, content.documents):
            if offered:
                said.append(orjson.dumps(offered, option=orjson.OPT_SORT_KEYS).decode())
    return said


def _beside(message: Message) -> Iterator[str]:
    """What a message says beside its content: the first of the keys of reasoning, and its calls."""
    for key in REASONING_KEYS:
        if isinstance(message.get(key), str):
            yield message[key]
            break
    if calls := message.get("tool_calls"):
        yield orjson.dumps(calls, option=orjson.OPT_SORT_KEYS).decode()
