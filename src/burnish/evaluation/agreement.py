"""Whether raters agree, beyond what chance would give them, and whether the place of an answer decides its votes.

two raters          cohen_kappa(["a", "b", "tie"], ["a", "b", "b"])
any number          fleiss_kappa({pair: [vote, vote, ...]})         pairs with one vote tell nothing of agreement
places              position_bias(first=61, second=39)              of all decided votes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish.evaluation.intervals import RESAMPLES, wilson_interval
from burnish.evaluation.requirements import require


@dataclass(frozen=True, slots=True)
class Agreement:
    """The share of equal votes, kappa (0 = chance, 1 = always), its 95% interval, and over how many pairs."""

    share: float
    kappa: float
    interval: tuple[float, float]
    items: int


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How often the answer shown first won, of the votes that were decided; p is that of a fair coin."""

    share_first: float
    interval: tuple[float, float]
    p_value: float
    votes: int

    @property
    def is_biased(self) -> bool:
        """Whether a fair judge would show this less than once in a hundred studies."""
        return self.p_value < 0.01


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable], *, seed: int = 0) -> Agreement:
    """Agreement of two raters over the same items (Cohen 1960), with an interval by bootstrap over items."""
    labels = {label: number for number, label in enumerate(dict.fromkeys([*one, *other]))}
    pairs = np.array(
        [labels[a] * len(labels) + labels[b] for a, b in zip(one, other, strict=True)], dtype=np.int64
    )
    if not len(pairs):
        return Agreement(float("nan"), float("nan"), (float("nan"), float("nan")), 0)
    size = len(labels)
    seen = _kappa_of_cells(np.bincount(pairs, minlength=size * size)[None], size)[0]
    random = np.random.Generator(np.random.Philox(seed))
    weights = np.bincount(pairs, minlength=size * size) / len(pairs)
    drawn = _kappa_of_cells(random.multinomial(len(pairs), weights, size=RESAMPLES), size)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    share = sum(a == b for a, b in zip(one, other, strict=True)) / len(pairs)
    return Agreement(share, float(seen), (float(low), float(high)), len(pairs))


def _kappa_of_cells(cells: np.ndarray, size: int) -> np.ndarray:
    """Kappa of each table of counts (tables, size * size); 1 where everybody always says the same thing."""
    table = cells.reshape(-1, size, size) / cells.sum(axis=1)[:, None, None]
    seen = np.trace(table, axis1=1, axis2=2)
    chance = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1)
    return np.where(chance < 1, (seen - chance) / np.where(chance < 1, 1 - chance, 1), 1.0)


def fleiss_kappa(votes: Mapping[Any, Sequence[Hashable]], *, seed: int = 0) -> Agreement:
    """Agreement of any raters, not the same for every item (Fleiss 1971, items of unequal numbers of votes)."""
    items = [list(each) for each in votes.values() if len(each) > 1]
    labels = list(dict.fromkeys(label for each in items for label in each))
    if not items:
        return Agreement(float("nan"), float("nan"), (float("nan"), float("nan")), 0)
    counts = np.array([[Counter(each)[label] for label in labels] for each in items], dtype=float)
    share, kappa = _fleiss(counts)
    random = np.random.Generator(np.random.Philox(seed))
    drawn = [_fleiss(counts[random.integers(0, len(counts), len(counts))])[1] for _ in range(RESAMPLES // 4)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Agreement(share, kappa, (float(low), float(high)), len(items))


def _fleiss(counts: np.ndarray) -> tuple[float, float]:
    """Share of agreeing pairs of votes, and kappa: (items, labels) counts."""
    raters = counts.sum(axis=1)
    agreeing = (counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    share = float(agreeing.mean())
    return share, 1.0 if chance >= 1 else (share - chance) / (1 - chance)


def position_bias(*, first: int, second: int) -> PositionBias:
    """A two-sided exact test of whether votes go to a place rather than to an answer."""
    votes = first + second
    if not votes:
        return PositionBias(float("nan"), (0.0, 1.0), 1.0, 0)
    test = require("scipy.stats", extra="arena").binomtest(first, votes)
    return PositionBias(first / votes, wilson_interval(first, votes), float(test.pvalue), votes)
