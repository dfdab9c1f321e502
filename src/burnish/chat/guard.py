"""Text in a row that only looks like a control token: marked before the render, plain text after it.

    user content   "say <|im_end|>"   with "." for the mark:   "say <.|.i.m._.e.n.d.|.>"

The template copies the marks along with the text. Its own `<|im_end|>` carries none: the two can be told
apart in the render, and only the template's becomes a control id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Any

from burnish.chat.provenance import Rendered
from burnish.chat.refusal import RowRefused
from burnish.chat.segments import any_of
from burnish.chat.template import ChatTemplate
from burnish.types import Conversation, Message

_FIRST_MARK, _LAST_MARK = 0xE000, 0xF8FF
_STRUCTURE = frozenset({"role", "type"})


@dataclass(frozen=True, slots=True)
class Guarded:
    """A conversation to render through `template`; without look-alikes the mark is ""."""

    template: ChatTemplate
    conversation: Conversation
    mark: str = ""
    lookalikes: int = 0


class Guard:
    """Finds look-alikes of control tokens in rows.

    A reply may write tokens that are structure without being special (`<think>`): those stay what they are.
    In everybody else's text they are plain text.
    """

    def __init__(self, *, controls: Collection[str], in_replies: Collection[str]) -> None:
        self._controls = any_of(controls)
        self._in_replies = any_of(in_replies)

    def apply(self, template: ChatTemplate, conversation: Conversation) -> Guarded:
        """The conversation with its look-alikes marked, and a template that proves the marks harmless."""
        for message in conversation.messages:
            if self._controls.search(str(message.get("role"))):
                raise RowRefused("control token in a role", f"role {message['role']!r}")
        # Nearly every row ends here: nothing marked, the template's own render used as it is.
        offered = [conversation.tools, conversation.documents]
        found = sum(map(self._count, conversation.messages)) + _count(offered, self._controls)
        if not found:
            return Guarded(template, conversation)
        mark = _free_mark([conversation.messages, offered, conversation.variables])
        messages = [_marked(message, self._pattern(message), mark) for message in conversation.messages]
        tools, documents = _marked(offered, self._controls, mark)
        marked = replace(conversation, messages=messages, tools=tools, documents=documents)
        return Guarded(_MarkedTemplate(template, mark), marked, mark, found)

    def apply_text(self, prompt: str, reply: str) -> tuple[str, str, str, int]:
        """A prompt and a reply without a template: both marked, the mark ("" for none), the look-alikes."""
        found = _count(prompt, self._controls) + _count(reply, self._in_replies)
        if not found:
            return prompt, reply, "", 0
        mark = _free_mark([prompt, reply])
        return _marked(prompt, self._controls, mark), _marked(reply, self._in_replies, mark), mark, found

    def _pattern(self, message: Message) -> re.Pattern[str]:
        return self._in_replies if message.get("role") == "assistant" else self._controls

    def _count(self, message: Message) -> int:
        return _count(message, self._pattern(message))


class _MarkedTemplate(ChatTemplate):
    """Renders marked messages, and refuses where the marks change anything but themselves."""

    def __init__(self, template: ChatTemplate, mark: str) -> None:
        self.__dict__.update(template.__getstate__())
        self._inner, self._mark = template, mark

    def render(self, *args: Any, **kwargs: Any) -> str:
        marked = self._inner.render(*args, **kwargs)
        plain = self._inner.render(*self._unmarked(args), **self._unmarked(kwargs))
        if marked.replace(self._mark, "") != plain:
            raise RowRefused(
                "control token in content",
                f"the template acts on what looks like one: {_difference(marked, self._mark, plain)!r}",
            )
        return marked

    def trace(self, *args: Any, **kwargs: Any) -> Rendered:
        return self._inner.trace(*args, **kwargs)

    def _unmarked(self, value: Any) -> Any:
        return _changed(value, lambda text: text.replace(self._mark, ""))


# A mark behind every character, not only the first: "[INST]" may hold a shorter token, "INST".
def _marked(value: Any, pattern: re.Pattern[str], mark: str) -> Any:
    return _changed(value, lambda text: pattern.sub(lambda match: mark.join(match[0]), text))


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a value with every string in it changed, but for keys, roles and types."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: item if key in _STRUCTURE else _changed(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(item, change) for item in value]
    return value


def _difference(marked: str, mark: str, plain: str) -> str:
    """Where the plain render begins to differ from the marked one without its marks."""
    start = len(commonprefix([marked.replace(mark, ""), plain]))
    return plain[max(0, start - 20) : start + 40]


def _strings(value: Any) -> Iterator[str]:
    """Every string in a value that `_changed` would change."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _STRUCTURE:
                yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _count(value: Any, pattern: re.Pattern[str]) -> int:
    return sum(len(pattern.findall(text)) for text in _strings(value))


def _free_mark(value: Any) -> str:
    """A private-use character that the row does not hold."""
    used = set().union(*_strings(value))
    for code in range(_FIRST_MARK, _LAST_MARK + 1):
        if chr(code) not in used:
            return chr(code)
    raise RowRefused("control token in content", "the row uses every private-use character")
