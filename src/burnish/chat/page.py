"""Strips as one HTML file that holds everything it needs and asks the network for nothing.

The tokens travel as JSON inside the page, and a script of the page's own writes them as text: no string of the data
is ever read as HTML. The page's policy allows that one script and that one style sheet, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from burnish.chat.strip import KINDS, Strip, origin_in_words, visible

COUNT_WORDS = {
    "seam_merges": "where a token would have joined prompt and reply, and was kept apart as at inference",
    "control_lookalikes": "pieces of text that look like control tokens, fed as plain text",
    "trimmed_replies": "replies whose white space the template trims",
    "unspelled_replies": "replies that the vocabulary cannot spell in full",
    "forgotten_reasoning": "turns before which the template drops earlier reasoning: they have views of their own",
    "reasoning_left_out": "messages whose reasoning is left out, as the recipe says",
    "searched_replies": "replies found by a search of the render, for the template hides where their text went",
    "loose_prompts": "turns that the template renders with other white space than it prompts with",
}
"""What an encoder counts, in words."""

MAX_LOST = 500
"""How many rows that are not trained on the page lists; the figure above the list counts all."""


class Lost(NamedTuple):
    """A row that training does not see as it stands: where, `dropped`, `cut` or `changed`, and why."""

    place: str
    action: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page says above the strips: names, and counts beyond those of the strips themselves."""

    dataset: str = ""
    model: str = ""
    template: str = ""
    scope: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    lost: Sequence[Lost] = ()


def html(strips: Sequence[Strip], *, title: str = "burnish preview", facts: Facts | None = None) -> str:
    """One page for all strips; left and right go from row to row, up and down through a row's views."""
    told = facts or Facts()
    style, script = _asset("strip.css"), _asset("strip.js")
    data = _data(strips)
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    # `</script>` in a token must not end the data: "<" is written as JSON lets it be.
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return _asset("strip.html").format_map(
        {
            "policy": markup.escape(policy),
            "title": _safe(title),
            "style": style,
            "script": script,
            "data": embedded,
            "share": f"{data['graded'] / max(1, data['total']):.0%}",
            "facts": _definitions(told, strips, data["total"]),
            "counts": _unusual(told.counts),
            "lost": _lost(told.lost),
        }
    )


def _data(strips: Sequence[Strip]) -> dict[str, Any]:
    """What the script draws: the strips by row, and tokens by kind over all of them."""
    by_kind = Counter(kind for strip in strips for kind in strip.kinds())
    # Over all examples, not the mean of their shares: a long context weighs what it costs.
    total = sum(len(strip.example) for strip in strips)
    rows = [
        {"row": row, "place": visible(place), "views": [_view(strip) for strip in views]}
        for (row, place), views in groupby(strips, key=lambda strip: (strip.example.row, strip.place))
    ]
    return {
        "kinds": KINDS,
        "by_kind": [by_kind[kind] for kind in KINDS],
        "total": total,
        "graded": sum(strip.example.num_graded for strip in strips),
        "rows": rows,
    }


def _view(strip: Strip) -> dict[str, Any]:
    number = {kind: index for index, kind in enumerate(KINDS)}
    return {
        "title": strip.title,
        "ids": strip.example.input_ids,
        "weight": strip.example.weights,
        "tokens": [visible(token) for token in strip.tokens],
        "kind": [number[kind] for kind in strip.kinds()],
        "origin": [visible(origin_in_words(origin)) for origin in strip.origins],
        "shared": strip.shared,
        "cut": strip.example.cut,
    }


def _definitions(facts: Facts, strips: Sequence[Strip], total: int) -> str:
    num_rows = len({strip.example.row for strip in strips})
    shown = f"{_number(num_rows, 'row')}, {_number(len(strips), 'sequence')}, {_number(total, 'token')}"
    entries = [
        ("data", facts.dataset),
        ("model", facts.model),
        ("template", facts.template),
        ("shown", f"{shown}{facts.scope and ' '}{facts.scope}"),
    ]
    return "\n".join(f"<div><dt>{name}</dt><dd>{_safe(value)}</dd></div>" for name, value in entries if value)


def _unusual(counts: Mapping[str, int]) -> str:
    entries = [(count, COUNT_WORDS.get(key, key.replace("_", " "))) for key, count in counts.items() if count]
    return "\n".join(f"<li><b>{count:,}</b> {_safe(words)}</li>" for count, words in entries)


def _lost(lost: Sequence[Lost]) -> str:
    """The rows that are not fed as they stand, as a table that is closed at first; nothing where there are none."""
    if not lost:
        return ""
    places = {entry.place for entry in lost}
    dropped = {entry.place for entry in lost if entry.action == "dropped"}
    counts = (("not trained on", len(dropped)), ("cut or changed", len(places - dropped)))
    heads = [f"{words}: {_number(count, 'row')}" for words, count in counts if count]
    rows = "\n".join(
        f"<tr><td>{_safe(entry.place)}</td><td>{_safe(entry.action)}</td><td>{_safe(entry.reason)}</td>"
        f"<td>{_safe(entry.detail)}</td></tr>"
        for entry in lost[:MAX_LOST]
    )
    more = f"<p>and {len(lost) - MAX_LOST:,} more</p>" if len(lost) > MAX_LOST else ""
    return (
        f'<details class="lost"><summary>{" · ".join(heads)}</summary><div class="scroll"><table>'
        '<thead><tr><th scope="col">where</th><th scope="col">what</th><th scope="col">reason</th>'
        f'<th scope="col">detail</th></tr></thead><tbody>{rows}</tbody></table></div>{more}</details>'
    )


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _safe(text: str) -> str:
    return markup.escape(visible(text))


def _asset(name: str) -> str:
    return files("burnish.chat").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
