"""Nothing that a row says is lost in its render, unless it is named.

    reply     "  Paris. "     render  "Paris."        uncovered: (0, 2) and (8, 9), whitespace at the ends: trimmed
    reply     "<think>\\nwhy\\n</think>\\n\\nso"          the template writes its own tags around "why" and "so"
    anything else that is missing                      the row is refused

Told by provenance: which characters of each string came out. Where a template's doings hide that, the string is
searched for in the render.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from burnish.chat.provenance import Leaf, Rendered
from burnish.chat.reasoning import inline_block
from burnish.chat.refusal import RowRefused
from burnish.types import REASONING_KEYS, Message

_TAG = re.compile(r"</?\w+>|\[/?[A-Z_]+\]")
_SYSTEM = ("system", "developer")
_PATH = re.compile(
    r"^(?:content|reasoning|tool_calls\[\d+\]\.(?:name|arguments|function\.(?:name|arguments)))"
)

REASONING_LOST = "reasoning not found in the render"


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a trained reply and of the messages before it.

    `trimmed`: whitespace around the reply is gone. `searched`: origins were lost, and the text was searched for.
    `forgotten`: earlier reasoning is not in the prompt.
    """

    trimmed: bool = False
    searched: bool = False
    forgotten: bool = False


KEPT = Kept()


def must_say(message: Message) -> Iterator[tuple[str, str]]:
    """The strings of a message that its render must hold, in the order of templates, with their kinds."""
    reasoning = next((message[key] for key in REASONING_KEYS if message.get(key)), "")
    yield from (("reasoning", text) for text in _strings(reasoning))
    yield from (("reply", text) for text in _strings(message.get("content")))
    for call in message.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        yield "tool call", str(function.get("name", ""))
        yield from (("tool call", text) for text in _strings(function.get("arguments")))


def check_reply(
    message: Message, index: int, rendered: Rendered, place: tuple[int, int], opened: str
) -> Kept:
    """Every character of a trained reply is at `place` in the render, modulo a trim; RowRefused otherwise.

    `opened` is the tag that the prompt opens, if any: "<think>\n" is fed, "why\n</think>\n\nso" is the reply.
    """
    begin, end = place
    missing = _uncovered(rendered, index, begin, end)
    if missing is None:
        return _search_reply(message, index, rendered.text[begin:end])
    completion = rendered.text[begin:end]
    trimmed = False
    for leaf, start, stop in missing:
        gone = leaf.text[start:stop]
        at_an_end = not leaf.text[:start].strip() or not leaf.text[stop:].strip()
        if not gone.strip() and at_an_end:
            trimmed = True
        elif not _is_rewrapped(gone, opened + completion):
            return _search_reply(message, index, completion)
    return Kept(trimmed=trimmed)


def _is_rewrapped(gone: str, completion: str) -> bool:
    """Whether only tags are gone that the template wrote again itself: "<think>\\nwhy" -> "<think>\\n" + "why"."""
    tags = _TAG.findall(gone)
    return bool(tags) and not _TAG.sub("", gone).strip() and all(tag in completion for tag in tags)


def _search_reply(message: Message, index: int, completion: str) -> Kept:
    # A reply "t" may be found early, in "<think>": no harm, for it is a last resort, and the certificate looks again.
    cursor = 0
    for kind, text in must_say(message):
        found = find(completion, text, cursor)
        if found is None:
            raise RowRefused(f"{kind} not found in the render", f"message {index}: {text[:60]!r}")
        cursor = found
    content = message.get("content")
    return Kept(trimmed=isinstance(content, str) and content not in completion, searched=True)


def check_history(messages: Sequence[Message], fed: Rendered) -> Kept:
    """Every earlier message is in the prompt, in order; a system message anywhere, for Mistral moves it.

    Of an earlier reply the reasoning may be gone: templates drop it, and inference would not see it either.
    """
    cursor, forgotten, searched = 0, False, False
    covered = _coverage(fed)
    for index, message in enumerate(messages):
        in_place = message.get("role") not in _SYSTEM
        start = cursor if in_place else 0
        for kind, text in must_say(message):
            if not text.strip():
                continue
            known = covered.get((index, text))
            if known is not None and (not in_place or known.start >= cursor):
                start = max(start, known.end)
                # "<think>x</think>A" -> "A": of an earlier reply the last part is enough.
                forgotten = forgotten or not known.whole
                continue
            if kind == "reasoning" and fed.leaves:
                forgotten = True
                continue
            end = find(fed.text, text, start)
            if end is None:
                raise RowRefused(
                    "message lost in the render",
                    f"message {index} ({message.get('role')}): {text[:60]!r} is not in the prompt",
                )
            start, searched = end, True
        cursor = start if in_place else cursor
    return Kept(searched=searched, forgotten=forgotten)


class _Place(NamedTuple):
    """Where a string came out, from its first to its last character, and whether all of it did."""

    start: int
    end: int
    whole: bool


def _coverage(rendered: Rendered) -> dict[tuple[int, str], _Place]:
    """Where each string came out, by message and text: whole, or what follows the reasoning that it begins with."""
    places: dict[int, tuple[int, int, int]] = {}
    for run in rendered.runs:
        if run.leaf >= 0:
            start, _, count = places.get(run.leaf, (run.start, 0, 0))
            places[run.leaf] = (start, run.end, count + run.end - run.start)
    found: dict[tuple[int, str], _Place] = {}
    for number, (start, end, count) in places.items():
        leaf = rendered.leaves[number]
        whole = count >= len(leaf.text.strip())
        if whole or count >= len(leaf.text[inline_block(leaf.text) :].strip()):
            found.setdefault((leaf.message, leaf.text), _Place(start, end, whole))
    return found


def _uncovered(rendered: Rendered, index: int, begin: int, end: int) -> list[tuple[Leaf, int, int]] | None:
    """The parts of message `index` that are not between `begin` and `end`; None where nothing is known of it."""
    wanted = {
        number: leaf
        for number, leaf in enumerate(rendered.leaves)
        if leaf.message == index and _PATH.match(leaf.field)
    }
    if not rendered.leaves:
        return None
    spans: dict[int, list[tuple[int, int]]] = {number: [] for number in wanted}
    for run in rendered.runs:
        if run.leaf in spans and run.start >= begin and run.end <= end:
            spans[run.leaf].append((run.offset, run.offset + run.end - run.start))
    return [
        (leaf, start, stop) for number, leaf in wanted.items() for start, stop in _gaps(spans[number], leaf)
    ]


def _gaps(spans: list[tuple[int, int]], leaf: Leaf) -> Iterator[tuple[int, int]]:
    cursor = 0
    for start, end in [*sorted(spans), (len(leaf.text), len(leaf.text))]:
        if start > cursor:
            yield cursor, start
        cursor = max(cursor, end)


def _strings(value: object) -> Iterator[str]:
    """Every string inside a value, but for the `type` of a content part."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key != "type":
                yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)


def _forms(text: str) -> Iterator[str]:
    yield text
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(text)[1:-1]


def find(text: str, wanted: str, start: int) -> int | None:
    """The end of `wanted` in `text`: as it is, as JSON writes it, or its parts around tags, each trimmed.

    A template that knows reasoning re-wraps it: "<think>why</think>so" -> "<think>\\nwhy\\n</think>\\n\\nso".
    """
    wanted = wanted.strip()
    for form in _forms(wanted):
        at = text.find(form, start)
        if at >= 0:
            return at + len(form)
    parts = _TAG.split(wanted)
    if len(parts) == 1 or not any(part.strip() for part in parts):
        return None
    cursor: int | None = start
    for part in parts:
        cursor = None if cursor is None else find(text, part, cursor)
    return cursor
