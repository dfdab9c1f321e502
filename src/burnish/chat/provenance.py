"""Where each character of a render came from: a field of a message, or the template itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

OWN = -1
"""The leaf of a run whose characters the template wrote itself."""


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
