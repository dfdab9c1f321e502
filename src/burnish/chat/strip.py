"""The token strip of an example: each token with its text, its weight, and where it came from.

    {"row": 6, "turns": [1], "input_ids": [1, 320], "position_ids": [0, 1], "graded": [0, 1],
     "weight": [0.0, 1.0], "tokens": ["<|im_start|>", "user"], "origin": ["prompt", "reply 1.content[0:4]"]}

`chat.paint` draws strips in a terminal, `chat.page` as one HTML file. What a row says is data in both: escape
sequences are spelled out, HTML stays text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

from burnish.chat.encode import Encoder
from burnish.chat.provenance import TokenOrigin
from burnish.types import Example

KINDS = ("context", "reply", "reasoning", "tool call", "template", "stop")
"""What a token is drawn as: `context` is every token without weight, the others are the reasons of graded ones."""

PART_WORDS = {"reply": "reply", "reasoning": "reasoning", "tool call": "tool call", "no weight": "weight 0"}

# Letters and marks that draw nothing: fillers, joiners, variation selectors. Text can hide in each of them.
_UNSEEN = frozenset(
    chain(
        (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        range(0x180B, 0x1810),
        range(0xFE00, 0xFE10),
        range(0xE0100, 0xE01F0),
    )
)
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Strip:
    """An example with the text and the origin of its tokens, and its place among the views of its row.

    `shared` is how many tokens it begins with that the view before it begins with too.
    """

    example: Example
    tokens: list[str]
    origins: Sequence[TokenOrigin]
    place: str = ""
    view: int = 1
    num_views: int = 1
    shared: int = 0

    @property
    def share(self) -> float:
        """The part of the tokens that teach, 0 to 1."""
        return self.example.num_graded / max(1, len(self.example))

    @property
    def title(self) -> str:
        """The strip's name for people: "row 6 · view 2 of 3 · grades message 3"."""
        parts = [f"row {self.example.row}"]
        if self.num_views > 1:
            kind = "view" if self.example.turns else "window"
            parts.append(f"{kind} {self.view} of {self.num_views}")
        if turns := self.example.turns:
            parts.append(f"grades message{'s' * (len(turns) > 1)} {', '.join(map(str, turns))}")
        return " · ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The example as `--json` prints it."""
        example = self.example
        return {
            "row": example.row,
            "turns": list(example.turns),
            "input_ids": example.input_ids,
            "position_ids": list(range(len(example))),
            "graded": [int(weight != 0.0) for weight in example.weights],
            "weight": example.weights,
            "tokens": self.tokens,
            "origin": [short_origin(origin) for origin in self.origins],
        }

    def kinds(self) -> list[str]:
        """For each token, which of KINDS it is drawn as."""
        pairs = zip(self.example.weights, self.origins, strict=True)
        return [
            "context" if weight == 0.0 else origin.reason if origin.reason in KINDS else "template"
            for weight, origin in pairs
        ]


def strip_of(
    example: Example,
    encoder: Encoder,
    *,
    origins: Sequence[TokenOrigin] | None = None,
    place: str = "",
    view: int = 1,
    num_views: int = 1,
    before: Strip | None = None,
) -> Strip:
    """The strip of an example that `encoder` made; `before` is the view before it of the same row.

    Without `origins`, a token is told by its weight alone: prompt, reply or stop.
    """
    known = _guessed(example, encoder.stop_ids) if origins is None else origins
    shared = _shared(before.example.input_ids, example.input_ids) if before and example.turns else 0
    return Strip(example, encoder.pieces(example), known, place, view, num_views, shared)


def visible(text: str) -> str:
    """Text in which nothing can act on a terminal or hide: "\\x1b[31m" -> "␛[31m", U+202E -> "⟨202E⟩"."""
    return "".join(_visible_character(character) for character in text)


def short_origin(origin: TokenOrigin) -> str:
    """An origin for programs: "reply 1.content[0:5]", "prompt", "template", "stop"."""
    if origin.message is None:
        return origin.reason
    # The tools are no message, and their field begins with their name: "prompt tools[0].function.name[0:4]".
    named = [str(origin.message)] * (origin.message >= 0) + [origin.field] * bool(origin.field)
    span = f"[{origin.span[0]}:{origin.span[1]}]" if origin.span else ""
    return f"{origin.reason} {'.'.join(map(str, named))}{span}"


def origin_in_words(origin: TokenOrigin) -> str:
    """An origin for people: "message 1, reply, characters 0 to 5"."""
    if origin.reason == "stop":
        return "stop token: ends the turn"
    if origin.reason == "template":
        return "the template's own text"
    where: list[str] = []
    if origin.message is not None:
        where.append("the tools offered" if origin.message < 0 else f"message {origin.message}")
        # The field says more than the reason only where there are several: a call's name and its arguments.
        named = PART_WORDS.get(origin.reason)
        where += [named] if named else []
        if origin.field and (named is None or origin.reason == "tool call"):
            where.append(origin.field.rpartition(".function.")[2])
        if origin.span:
            where.append(f"characters {origin.span[0]} to {origin.span[1]}")
    if origin.reason == "prompt":
        return ": ".join(["prompt", ", ".join(where)]) if where else "prompt"
    return ", ".join(where) or PART_WORDS.get(origin.reason, origin.reason)


def _visible_character(character: str) -> str:
    # Cc: escape, bell; Cf: text direction, zero width, tags; Co, Cs, Cn: what no font has; Zl, Zp: line breaks.
    code = ord(character)
    if character in "\n ":
        return character
    if unicodedata.category(character) not in _UNSEEN_CATEGORIES and code not in _UNSEEN:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨{code:04X}⟩"


def _guessed(example: Example, stop_ids: frozenset[int]) -> list[TokenOrigin]:
    pairs = zip(example.input_ids, example.weights, strict=True)
    return [
        TokenOrigin("prompt" if weight == 0.0 else "stop" if index in stop_ids else "reply")
        for index, weight in pairs
    ]


def _shared(before: Sequence[int], here: Sequence[int]) -> int:
    pairs = zip(before, here, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
