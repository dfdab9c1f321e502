"""The token strip of an example, for people: grey what is context, in colour what teaches.

    {"row": 6, "turns": [1], "input_ids": [1, 320], "position_ids": [0, 1], "graded": [0, 1],
     "weight": [0.0, 1.0], "tokens": ["<|im_start|>", "user"]}

In the terminal through rich, or as one HTML file that holds everything it needs and asks the network for
nothing. What a row says is data in both: escape sequences are spelled out, HTML stays text.
"""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rich.console import Group
from rich.text import Text

from burnish.chat.encode import Encoder
from burnish.types import Example

_CONTEXT, _GRADED, _STOP, _CUT = "grey58", "bold black on pale_green1", "bold white on dark_green", "red"
_LINE = "⏎\n"


@dataclass(frozen=True, slots=True)
class Strip:
    """An example with the text of its tokens, and the ids that end a turn."""

    example: Example
    tokens: list[str]
    stop_ids: frozenset[int]

    @property
    def share(self) -> float:
        """The part of the tokens that teach, 0 to 1."""
        return self.example.num_graded / max(1, len(self.example))

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
        }

    def stops(self) -> list[bool]:
        """For each token, whether it is a stop token that is graded."""
        pairs = zip(self.example.input_ids, self.example.weights, strict=True)
        return [weight != 0.0 and index in self.stop_ids for index, weight in pairs]


def strip_of(example: Example, encoder: Encoder) -> Strip:
    """The strip of an example that `encoder` made."""
    return Strip(example, encoder.pieces(example), encoder.stop_ids)


def visible(text: str) -> str:
    """Text in which nothing can act on a terminal or hide: "\\x1b[31m" -> "␛[31m", U+202E -> "⟨202E⟩"."""
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    # Cc: escape, bell; Cf: text direction, zero width; Co and Cs: what no font has.
    code = ord(character)
    if character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cs"):
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨{code:04X}⟩"


def terminal(strip: Strip) -> Group:
    """The strip for a terminal: a line of figures, then the tokens."""
    example = strip.example
    turns = ", ".join(map(str, example.turns)) or "none"
    head = Text(
        f"row {example.row} · graded messages: {turns} · {len(example)} tokens · "
        f"{strip.share:.0%} of tokens teach",
        style="bold",
    )
    body = Text()
    for token, weight, stop in zip(strip.tokens, example.weights, strip.stops(), strict=True):
        style = _STOP if stop else _GRADED if weight else _CONTEXT
        body.append(visible(token).replace("\n", _LINE), style=style)
    if example.cut:
        body.append(f" ╱╱╱ {example.cut} graded tokens cut off ╱╱╱", style=_CUT)
    return Group(head, body, legend())


def legend() -> Text:
    """What the colours mean."""
    entries = (("context", _CONTEXT), ("graded", _GRADED), ("stop token", _STOP), ("cut", _CUT))
    return Text("  ").join(Text(name, style=style) for name, style in entries)


def html(strips: Sequence[Strip], *, title: str = "burnish preview") -> str:
    """One HTML page for all strips; left and right go from one example to the next."""
    style, script = _asset("strip.css"), _asset("strip.js")
    # Over all examples, not the mean of their shares: a long context weighs what it costs.
    total = sum(len(strip.example) for strip in strips)
    graded = sum(strip.example.num_graded for strip in strips)
    data = {
        "total": total,
        "graded": graded,
        "strips": [
            {**strip.as_dict(), "stop": [int(stop) for stop in strip.stops()], "cut": strip.example.cut}
            | {"tokens": [visible(token) for token in strip.tokens]}
            for strip in strips
        ],
    }
    # `</script>` in a token must not end the data: "<" is written as JSON lets it be.
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}"
    return _asset("strip.html").format_map(
        {
            "policy": markup.escape(policy),
            "title": markup.escape(title),
            "style": style,
            "script": script,
            "data": embedded,
            "share": f"{graded / max(1, total):.0%}",
        }
    )


def _asset(name: str) -> str:
    return files("burnish.chat").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
