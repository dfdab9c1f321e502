"""A weighted mixture of sources, written down: exact counts, rows drawn by a key.

    a.jsonl=3 b.jsonl=1, 1,000 rows   ->   750 of a, 250 of b
    thirds of 1,000                   ->   334, 333, 333: the largest remainder, the earlier source first

Which rows are drawn hangs on seed, source and number of rows; they stay in reading order, for training shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from burnish.curation.flow import KEPT, Verdict, removed
from burnish.curation.items import Input, Item, Progress, read_items
from burnish.errors import DataError, UsageError

Short = Literal["stop", "repeat", "drop"]
"""Where a source has fewer rows than its share: fewer rows in all, rows more than once, or the share not filled."""


def as_short(word: str) -> Short:
    """The word as one of the rules, or the usage error that lists them."""
    for rule in get_args(Short):
        if word == rule:
            return rule  # type: ignore[no-any-return]
    raise UsageError(
        f"--short {word!r}", rule=f"it is one of {', '.join(get_args(Short))}", remedy="write --short repeat"
    )


@dataclass(frozen=True)
class Draw:
    """The judge: for each source how often each of its rows, by place among the readable ones, is written."""

    copies: dict[int, int]

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """Rows that were drawn stay, as often as they were drawn."""
        return [self._verdict(self.copies.get(item.row.index, 0)) for item in items]

    def _verdict(self, copies: int) -> Verdict:
        if copies == 0:
            return removed("not drawn")
        return KEPT if copies == 1 else Verdict(True, "repeated", f"{copies} times", copies=copies)


def largest_remainder(total: int, weights: Sequence[Fraction]) -> list[int]:
    """`total` in whole numbers as near the weights as can be; of equal remainders the earlier is rounded up."""
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights]
    counts = [int(share) for share in exact]
    order = sorted(range(len(exact)), key=lambda k: (counts[k] - exact[k], k))
    for k in order[: total - sum(counts)]:
        counts[k] += 1
    return counts


def shares(sizes: Sequence[int], weights: Sequence[Fraction], rows: int | None, short: Short) -> list[int]:
    """How many rows each source gives; without `rows`, as many as there are before a source runs short."""
    if rows is None:
        # The source that is used up first decides: 100 rows at weight 1 of 4 are 400 rows in all.
        rows = min(
            int(size * sum(weights) / weight) for size, weight in zip(sizes, weights, strict=True) if weight
        )
    counts = largest_remainder(rows, weights)
    if short == "stop":
        while any(count > size for count, size in zip(counts, sizes, strict=True)):
            fits = [
                int(size * sum(weights) / weight)
                for size, weight in zip(sizes, weights, strict=True)
                if weight
            ]
            rows = min(rows - 1, min(fits) + len(sizes))
            counts = largest_remainder(rows, weights)
    if short == "drop":
        counts = [min(count, size) for count, size in zip(counts, sizes, strict=True)]
    return counts


def draw(
    inputs: Sequence[Input],
    weights: Sequence[Fraction],
    *,
    rows: int | None,
    short: Short,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> tuple[Draw, list[int], list[int]]:
    """The judge, the readable rows of each source, and the rows that each gives."""
    numbers: list[list[int]] = [[] for _ in inputs]
    for done, item in enumerate(read_items(inputs), start=1):
        if isinstance(item, Item):
            numbers[item.row.source].append(item.row.index)
        progress(done, None)
    sizes = list(map(len, numbers))
    for source, size in zip(inputs, sizes, strict=True):
        if size == 0:
            raise DataError(
                f"{source.path}: 0 readable rows", rule="every source gives rows", remedy="leave it out"
            )
    counts = shares(sizes, weights, rows, short)
    copies: dict[int, int] = {}
    for number, (places, count) in enumerate(zip(numbers, counts, strict=True)):
        times, rest = divmod(count, len(places))
        generator = np.random.Generator(np.random.Philox(key=[seed, number]))
        chosen = set(generator.permutation(len(places))[:rest].tolist())
        for k, index in enumerate(places):
            if times + (k in chosen):
                copies[index] = times + (k in chosen)
    return Draw(copies), sizes, counts


def read_weights(words: Sequence[str]) -> tuple[list[str], list[Fraction]]:
    """`a.jsonl=3 b.jsonl` as paths and weights, 1 where none is given."""
    paths, weights = [], []
    for word in words:
        path, equals, weight = word.rpartition("=")
        try:
            value = Fraction(weight) if equals else Fraction(1)
        except (ValueError, ZeroDivisionError):
            value = Fraction(-1)
        if value <= 0:
            raise UsageError(
                f"{word}: weight {weight!r}",
                rule="a weight is a number above 0, after the last `=`",
                remedy=f"write {path}=2, {path}=0.5 or {path}=1/3",
            )
        paths.append(path if equals else word)
        weights.append(value)
    return paths, weights
