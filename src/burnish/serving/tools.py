"""Tool calls in an answer, where the template's family has a known way to write them; else they are content.

    Hermes, Qwen    <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>
    Llama 3         {"name": "add", "parameters": {"a": 1}}                           the whole answer

An answer is read while it comes: text before a call is content at once, what may be a call is held until the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from burnish.data.reject import ConversionError
from burnish.data.strict import parse_json
from burnish.serving.spelling import held_back


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function's name and its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a family writes calls. `opener` begins one; with `at_start`, only as the first thing of an answer."""

    name: str
    opener: str
    at_start: bool
    read: Callable[[str], list[ToolCall] | None]
    shown: frozenset[str] = frozenset()


def format_of(template: str) -> ToolFormat | None:
    """The way in which a model with this chat template writes its calls; None where it is not known."""
    if "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template:
        return HERMES
    if "<|start_header_id|>" in template and '"parameters"' in template:
        return LLAMA3
    return None


class ToolReader:
    """Tells content from calls while an answer comes; without a format all is content."""

    def __init__(self, format: ToolFormat | None) -> None:
        self._format = format
        self._held = ""
        self._is_call = False
        self._begun = False

    def push(self, text: str) -> str:
        """Take in text; what of it is content for certain."""
        if self._format is None:
            return text
        self._held += text
        if self._is_call:
            return ""
        opener = self._format.opener
        if self._format.at_start:
            if self._begun or not self._held.strip():
                return self._release(len(self._held)) if self._begun else ""
            self._begun = True
            self._is_call = self._held.lstrip().startswith(opener)
            return "" if self._is_call else self._release(len(self._held))
        at = self._held.find(opener)
        if at >= 0:
            self._is_call = True
            return self._release(at)
        return self._release(len(self._held) - held_back(self._held, [opener]))

    def finish(self) -> tuple[str, list[ToolCall]]:
        """What is left: content, or calls."""
        calls = self._format.read(self._held) if self._format and self._is_call else None
        return ("", calls) if calls else (self._held, [])

    def _release(self, size: int) -> str:
        content, self._held = self._held[:size], self._held[size:]
        return content


_BLOCK = re.compile(r"\s*<tool_call>\s*(\{.*?\})\s*</tool_call>\s*", re.DOTALL)


def _read_hermes(text: str) -> list[ToolCall] | None:
    calls, at = [], 0
    while at < len(text):
        block = _BLOCK.match(text, at)
        call = block and _call(block[1], "arguments")
        if not block or not call:
            return None
        calls.append(call)
        at = block.end()
    return calls or None


def _read_llama3(text: str) -> list[ToolCall] | None:
    call = _call(text.strip(), "parameters")
    return [call] if call else None


def _call(source: str, key: str) -> ToolCall | None:
    try:
        value: Any = parse_json(source.encode())
    except ConversionError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get(key, {})
    return (
        ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False))
        if isinstance(arguments, dict)
        else None
    )


HERMES = ToolFormat("hermes", "<tool_call>", False, _read_hermes, frozenset({"<tool_call>", "</tool_call>"}))
LLAMA3 = ToolFormat("llama3", "{", True, _read_llama3)
