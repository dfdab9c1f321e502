"""Where each character of a render came from: a field of a message, or the template itself.

    content = Traced.of("  Paris. ", leaf=3)
    "<|im_start|>" + content.strip() + "\\n"      text  <|im_start|>Paris.\\n
                                                 runs  12 of the template, 6 of leaf 3 from 2 on, 1 of the template

A `Traced` string is a string, and stays one that knows its origin through what templates do to strings. Where an
operation is not kept track of, its result is the template's own text: origin is lost, never invented.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, SupportsIndex

OWN = -1
"""The leaf of characters that the template wrote itself."""

_PLACE = re.compile(r"@burnish-([0-9]+)@")

Piece = tuple[int, int, int]
"""So many characters, of which leaf, from which offset on in it (0 for the template's own)."""


class Leaf(NamedTuple):
    """One string of the data: the message that holds it (-1: the tools), its path in there, its text."""

    message: int
    field: str
    text: str


class Run(NamedTuple):
    """Characters `start` to `end` of a render: those of `leaf` from `offset` on, or the template's own."""

    start: int
    end: int
    leaf: int
    offset: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A render, with runs that cover it from its first character to its last."""

    text: str
    runs: tuple[Run, ...]
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True, slots=True)
class TokenOrigin:
    """Where one token of an example came from, for people.

    `reason` is why it is graded or not: `prompt` (context), `reply`, `reasoning`, `tool call`, `template` (the
    template's own text inside a reply), `stop`, `no weight`. `message` and `field` are None for the template's own
    text; `span` is the token's characters within the field.
    """

    reason: str
    message: int | None = None
    field: str | None = None
    span: tuple[int, int] | None = None


class Traced(str):
    """A string that knows, for each of its characters, the leaf and the offset that it came from."""

    __slots__ = ("_pieces",)
    _pieces: tuple[Piece, ...]

    def __new__(cls, text: object = "", pieces: tuple[Piece, ...] | None = None) -> Traced:
        """`text` with the origins `pieces`; without them, text of the template's own."""
        new = super().__new__(cls, text)
        new._pieces = pieces_of(str.__str__(new)) if pieces is None else pieces
        return new

    @classmethod
    def of(cls, text: str, *, leaf: int) -> Traced:
        """The whole text of a leaf."""
        return cls(text, ((len(text), leaf, 0),) if text else ())

    def __str__(self) -> str:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)

    def __add__(self, other: str) -> Traced:
        return join("", (self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> Traced:
        return join("", (other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> Traced:
        return join("", [self] * operator.index(times))

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> Traced:
        start, stop, step = self._range_of(key)
        if step == 1:
            return self._part(start, max(start, stop))
        return join("", [self._part(at, at + 1) for at in range(start, stop, step)])

    def _range_of(self, key: SupportsIndex | slice) -> tuple[int, int, int]:
        if isinstance(key, slice):
            return key.indices(len(self))
        at = range(len(self))[operator.index(key)]
        return at, at + 1, 1

    def __iter__(self) -> Iterator[Traced]:
        return (self._part(at, at + 1) for at in range(len(self)))

    def _part(self, start: int, end: int) -> Traced:
        return Traced(str.__getitem__(self, slice(start, end)), _between(self._pieces, start, end))

    def strip(self, chars: str | None = None, /) -> Traced:
        """`str.strip`."""
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> Traced:
        """`str.lstrip`."""
        return self._part(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> Traced:
        """`str.rstrip`."""
        return self._part(0, len(super().rstrip(chars)))

    def removeprefix(self, prefix: str, /) -> Traced:
        """`str.removeprefix`."""
        return self._part(len(prefix) if self.startswith(prefix) else 0, len(self))

    def removesuffix(self, suffix: str, /) -> Traced:
        """`str.removesuffix`."""
        return self._part(0, len(super().removesuffix(suffix)))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """`str.split`."""
        return list(self._found(super().split(sep, maxsplit), len(sep or "")))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """`str.rsplit`."""
        return list(self._found(super().rsplit(sep, maxsplit), len(sep or "")))

    def splitlines(self, keepends: bool = False) -> list[str]:
        """`str.splitlines`."""
        bounds = [0, *accumulate(map(len, super().splitlines(keepends=True)))]
        bare = super().splitlines(keepends)
        return [self._part(start, start + len(line)) for start, line in zip(bounds, bare, strict=False)]

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        """`str.partition`."""
        return self._three(super().partition(sep))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        """`str.rpartition`."""
        return self._three(super().rpartition(sep))

    def _three(self, parts: tuple[str, str, str]) -> tuple[str, str, str]:
        first, middle, last = self._found(parts, 0)
        return first, middle, last

    def _found(self, parts: Iterable[str], gap: int) -> Iterator[Traced]:
        """Parts of this string, in its order, `gap` characters between them; whitespace too where it is 0."""
        # "a  ab".split() -> "a", "ab": between parts there is only whitespace, and no part begins with it.
        cursor = 0
        for part in parts:
            cursor = str.find(self, part, cursor)
            yield self._part(cursor, cursor + len(part))
            cursor += len(part) + gap

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> Traced:
        """`str.replace`."""
        if not old:
            return Traced(super().replace(old, new, count))
        return join(new, self.split(old, count))

    def join(self, parts: Iterable[str], /) -> Traced:
        """`str.join`."""
        return join(self, parts)

    def _same_length(self, text: str) -> Traced:
        """Text made from this one, character for character."""
        return Traced(text, self._pieces if len(text) == len(self) else None)

    def upper(self) -> Traced:
        """`str.upper`."""
        return self._same_length(super().upper())

    def lower(self) -> Traced:
        """`str.lower`."""
        return self._same_length(super().lower())

    def capitalize(self) -> Traced:
        """`str.capitalize`."""
        return self._same_length(super().capitalize())

    def title(self) -> Traced:
        """`str.title`."""
        return self._same_length(super().title())


def pieces_of(text: str) -> tuple[Piece, ...]:
    """The origins of any string: a plain one is the template's own."""
    if isinstance(text, Traced):
        return text._pieces
    return ((len(text), OWN, 0),) if text else ()


def join(separator: str, parts: Iterable[str]) -> Traced:
    """`separator.join(parts)`, every character with its origin."""
    parts = list(parts)
    joined: list[Piece] = []
    for number, part in enumerate(parts):
        if number and separator:
            _append(joined, pieces_of(separator))
        _append(joined, pieces_of(part))
    return Traced(str.join(separator, parts), tuple(joined))


def runs_of(text: str) -> tuple[Run, ...]:
    """The origins of a string as runs from its first character to its last."""
    pieces = pieces_of(text)
    bounds = pairwise([0, *accumulate(length for length, _, _ in pieces)])
    return tuple(
        Run(start, end, leaf, at) for (start, end), (_, leaf, at) in zip(bounds, pieces, strict=True)
    )


def without(mark: str, rendered: Rendered) -> Rendered:
    """A render without a mark that was put into the data, its leaves without it too."""
    if not mark:
        return rendered
    leaves = tuple(leaf._replace(text=leaf.text.replace(mark, "")) for leaf in rendered.leaves)
    runs: list[Run] = []
    cursor = 0
    for run in rendered.runs:
        length = run.end - run.start - rendered.text.count(mark, run.start, run.end)
        before = rendered.leaves[run.leaf].text.count(mark, 0, run.offset) if run.leaf != OWN else 0
        if length:
            runs.append(Run(cursor, cursor + length, run.leaf, run.offset - before))
        cursor += length
    return Rendered(rendered.text.replace(mark, ""), tuple(runs), leaves)


def to_json(value: Any, dump: Callable[[Any], str]) -> str:
    """`dump(value)`, with the origins of the traced strings that the value holds.

    dump({"city": <Oslo>})    text  {"city": "Oslo"}    runs  {"city": " of the template, Oslo, "}
    """
    plain = dump(value)
    known: list[Traced] = []
    # dumps does not keep track: each string is stood in for, and put back where its stand-in comes out.
    parts = _PLACE.split(dump(_stand_ins(value, known)))
    parts[1::2] = [_escaped(known[int(number)], dump) for number in parts[1::2] if int(number) < len(known)]
    traced = join("", parts)
    return traced if known and traced == plain else plain


def _stand_ins(value: Any, known: list[Traced]) -> Any:
    if isinstance(value, Traced):
        known.append(value)
        return f"@burnish-{len(known) - 1}@"
    if isinstance(value, Mapping):
        return {_stand_ins(key, known): _stand_ins(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stand_ins(item, known) for item in value]
    return value


def _escaped(text: Traced, dump: Callable[[Any], str]) -> Traced:
    """The inside of a JSON string; of an escape, the first character stands for the one that is escaped."""
    inside = dump(str.__str__(text))[1:-1]
    if inside == text:
        return text
    return join("", [_escaped_character(character, dump) for character in text])


def _escaped_character(character: Traced, dump: Callable[[Any], str]) -> Traced:
    inside = dump(str.__str__(character))[1:-1]
    # "\\n" -> "\\" of the leaf, "n" of the template: a run is as long as the text that it covers.
    return join("", [Traced(inside[:1], character._pieces), inside[1:]])


def _between(pieces: tuple[Piece, ...], start: int, end: int) -> tuple[Piece, ...]:
    """The origins of the characters `start` to `end`."""
    found: list[Piece] = []
    cursor = 0
    for length, leaf, offset in pieces:
        first, last = max(start, cursor), min(end, cursor + length)
        if first < last:
            found.append((last - first, leaf, offset + first - cursor if leaf != OWN else 0))
        cursor += length
    return tuple(found)


def _append(joined: list[Piece], pieces: Iterable[Piece]) -> None:
    """Add origins at the end; neighbours that go on where the last one stopped become one."""
    for length, leaf, offset in pieces:
        if joined:
            before, of, at = joined[-1]
            if of == leaf and (leaf == OWN or at + before == offset):
                joined[-1] = (before + length, leaf, at)
                continue
        joined.append((length, leaf, offset))
