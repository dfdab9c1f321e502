"""Sharpening: of a few held-out rows, the probability of each graded token by now, the base's, and its rank there.

    token          base p   rank   now p    group
    " Paris"        .41       1     .97     content     what is said: a letter or a digit is in it
    "."             .88       1     .99     format      what orders it: punctuation, white space, the template's own
    "<|im_end|>"    .00    2310     .99     stop        what ends it

A token whose base p is high was there to be sharpened. Content to which the base gave less than chance (1 over the
vocabulary) was not: there SFT is asked to teach knowledge, and mostly teaches to guess. docs/sharpening.md says more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from burnish.data.pack import Pack
from burnish.data.store import EncodedRows
from burnish.models.forward import Forward, pack_attention
from burnish.models.generate import evaluating
from burnish.models.ranking import Ranked, rank_targets
from burnish.models.tokenizer import ChatTokenizer
from burnish.types import Example

LONGEST = 512
"""Longer rows are passed over while there are shorter ones: a look happens at every evaluation, and is to be cheap."""
SHOWN_ROWS = 6
SHOWN_TOKENS = 256
SHOWN_PROMPT = 400
GROUPS = ("all", "content", "format", "stop")
UNKNOWN_TOKENS = 2
"""So many content tokens below chance, and a tenth of a row's content, make a row that the base knows nothing of."""
UNKNOWN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """A row that is looked at: its graded tokens as text, what each of them is, and the text before them."""

    row: int
    place: str
    prompt: str
    tokens: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A row whose content the base gives no probability: which tokens, and their share of the row's content."""

    place: str
    tokens: tuple[str, ...]
    share: float


class Sharpening:
    """The fixed rows of a run, and the base's answer for each graded token."""

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: ChatTokenizer,
        lay_out: Callable[[Sequence[Example]], list[Pack]],
        place_of: Callable[[int], str],
    ) -> None:
        self._seen = [see(each, tokenizer, place_of(each.row)) for each in examples]
        numbered = [replace(each, source=number) for number, each in enumerate(examples)]
        self._packs = lay_out(numbered)
        self._chance = 1.0 / len(tokenizer)
        self._groups = np.array([group for seen in self._seen for group in seen.groups])
        self._ends = np.cumsum([len(seen.tokens) for seen in self._seen])
        self._base: Ranked | None = None

    def ask_base(self, forward: Forward) -> None:
        """Ask the base, once, before anything has moved."""
        self._base = self._ask(forward)

    def look(self, forward: Forward, *, step: int, tokens: int) -> dict[str, Any]:
        """One line of sharpening.jsonl; `tokens` are those learned from so far."""
        now, base = self._ask(forward), self._base
        assert base is not None, "the base is asked first"
        groups = {
            group: _figures(now, base, mine)
            for group in GROUPS
            if (mine := np.ones(len(now.p), bool) if group == "all" else self._groups == group).any()
        }
        return {"step": step, "tokens": tokens, "groups": groups, "rows": self._rows(now, base)}

    def unknown(self) -> list[Unknown]:
        """The rows that ask for what the base does not know, most of all first."""
        assert self._base is not None
        found = []
        for seen, mine in zip(self._seen, self._slices(), strict=True):
            content = np.array([group == "content" for group in seen.groups])
            below = content & (self._base.p[mine] < self._chance)
            share = float(below.sum() / max(1, content.sum()))
            if below.sum() >= UNKNOWN_TOKENS and share >= UNKNOWN_SHARE:
                tokens = tuple(token for token, is_below in zip(seen.tokens, below, strict=True) if is_below)
                found.append(Unknown(seen.place, tokens, share))
        return sorted(found, key=lambda row: -row.share)

    @property
    def num_rows(self) -> int:
        """How many rows are looked at."""
        return len(self._seen)

    def _ask(self, forward: Forward) -> Ranked:
        """Row by row, whatever packs they were laid into."""
        with evaluating(forward.model), pack_attention(forward.model, packed=forward.packed):
            found = [(pack, rank_targets(forward, pack)) for pack in self._packs]
        whose = np.concatenate([pack.sources for pack, _ in found])
        order = np.argsort(whose, kind="stable")
        p, rank = (
            np.concatenate(parts)[order] for parts in zip(*((r.p, r.rank) for _, r in found), strict=True)
        )
        return Ranked(p, rank)

    def _slices(self) -> list[slice]:
        starts = [0, *self._ends[:-1].tolist()]
        return [slice(start, end) for start, end in zip(starts, self._ends.tolist(), strict=True)]

    def _rows(self, now: Ranked, base: Ranked) -> list[dict[str, Any]]:
        rows = []
        for seen, mine in list(zip(self._seen, self._slices(), strict=True))[:SHOWN_ROWS]:
            mine = slice(mine.start, min(mine.stop, mine.start + SHOWN_TOKENS))
            length = mine.stop - mine.start
            rows.append(
                {
                    "row": seen.row,
                    "place": seen.place,
                    "prompt": seen.prompt,
                    "tokens": list(seen.tokens[:length]),
                    "p": _rounded(now.p[mine]),
                    "rank": now.rank[mine].tolist(),
                    "base_p": _rounded(base.p[mine]),
                    "base_rank": base.rank[mine].tolist(),
                    "group": list(seen.groups[:length]),
                }
            )
        return rows


def choose_rows(held_out: EncodedRows, most: int) -> list[Example]:
    """Held-out rows at even distances, short ones where there are enough; of each its first view."""
    short = np.nonzero(held_out.row_lengths <= LONGEST)[0]
    numbers = (
        short
        if len(short) >= min(most, len(held_out))
        else np.argsort(held_out.row_lengths, kind="stable")[:most]
    )
    count = min(most, len(numbers))
    chosen = numbers[np.arange(count) * len(numbers) // max(1, count)]
    views = (held_out[int(number)][0] for number in chosen)
    return [view for view in views if view.num_graded]


def see(example: Example, tokenizer: ChatTokenizer, place: str) -> Seen:
    """What is told of a row beside its numbers."""
    pieces = tokenizer.encoder.pieces(example)
    graded = [k for k, weight in enumerate(example.weights) if weight != 0.0]
    stops = set(tokenizer.stop_ids)
    special = {*tokenizer.control_ids, *tokenizer.tokenizer.all_special_ids}
    ids = example.input_ids
    return Seen(
        example.row,
        place,
        "".join(pieces[: graded[0]])[-SHOWN_PROMPT:],
        tuple(pieces[k] for k in graded),
        tuple(group_of(ids[k], pieces[k], stops, special) for k in graded),
    )


def group_of(token: int, piece: str, stops: set[int], special: set[int]) -> str:
    """`stop`, `format` or `content`."""
    if token in stops:
        return "stop"
    if token in special or not any(char.isalnum() for char in piece):
        return "format"
    return "content"


def _figures(now: Ranked, base: Ranked, mine: Any) -> dict[str, Any]:
    p, before, rank = now.p[mine], base.p[mine], base.rank[mine]
    return {
        "n": int(mine.sum()),
        "mean_p": _six(p.mean()),
        "median_p": _six(np.median(p)),
        "top1": _six((now.rank[mine] == 1).mean()),
        "base_mean_p": _six(before.mean()),
        "base_top1": _six((rank == 1).mean()),
        "base_top5": _six((rank <= 5).mean()),
        "mean_rank_base": _six(rank.mean()),
        "median_rank_base": _six(np.median(rank)),
    }


def _six(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _rounded(values: Any) -> list[float]:
    return [_six(value) for value in values]
