"""Shares, their intervals, and exact tests of whether one share is above another; many tests held to one error rate.

Stratum(hits=9, rows=10, others_hit=20, others=100)        90% where the keyword stands, 20% where it does not
excess_p([...])     the chance of so many hits or more, if hits fell on the stratum's rows blindly
chance_p(30, [(40, 0.25)])     the chance of 30 or more of 40, each with probability 1/4
holm({"a": 0.001, "b": 0.2})   {"a": 0.002, "b": 0.2}: any below 0.05 at all: one balanced set in twenty at most
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np

FloatArray = np.ndarray[tuple[int], np.dtype[np.float64]]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Stratum:
    """Rows that are alike but for one thing: `hits` of `rows` with it, `others_hit` of `others` without."""

    hits: int
    rows: int
    others_hit: int
    others: int


def quantile_of_normal(confidence: float = 0.95) -> float:
    """How many standard errors lie on each side: 1.96 for 95%."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson_interval(successes: float, trials: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share (Wilson 1927); of no trials, everything is possible."""
    if trials <= 0:
        return 0.0, 1.0
    z, p = quantile_of_normal(confidence), successes / trials
    middle = p + z * z / (2 * trials)
    half = z * math.sqrt(max(0.0, p * (1 - p) / trials + z * z / (4 * trials * trials)))
    return max(0.0, (middle - half) / (1 + z * z / trials)), min(1.0, (middle + half) / (1 + z * z / trials))


def matched_share(strata: Sequence[Stratum]) -> tuple[float, float]:
    """The share of hits among the others, each stratum weighed by its rows; and the others' effective number."""
    used = [s for s in strata if s.others and s.rows]
    rows = sum(s.rows for s in used)
    if not rows:
        return math.nan, 0.0
    weights = [s.rows / rows for s in used]
    value = sum(w * s.others_hit / s.others for w, s in zip(weights, used, strict=True))
    return value, 1 / sum(w * w / s.others for w, s in zip(weights, used, strict=True))


def excess_p(strata: Sequence[Stratum]) -> float:
    """One-sided exact p of an excess of hits: the margins of every stratum held, strata independent."""
    used = [s for s in strata if s.rows and s.others]
    hits = sum(s.hits for s in used)
    expected = sum(s.rows * (s.hits + s.others_hit) / (s.rows + s.others) for s in used)
    if not used or hits <= expected:
        return (
            1.0  # at or below what is expected nothing is to be found, and the tail is about a half or more
        )
    low, chances = 0, np.ones(1)
    for stratum in used:
        first, part = _hypergeometric(stratum)
        low, chances = low + first, np.convolve(chances, part)
    return min(1.0, float(chances[hits - low :].sum()))


def least_p(strata: Sequence[Stratum]) -> float:
    """The smallest p that these margins could give, whatever was found: the most hits that fit, in every stratum."""
    value = 1.0
    for stratum in strata:
        if stratum.rows and stratum.others:
            value *= float(_hypergeometric(stratum)[1][-1])
    return value


def chance_p(hits: int, groups: Sequence[tuple[int, float]]) -> float:
    """One-sided exact p of `hits` or more, where `(n, p)` says that n rows each hit with probability p."""
    chances = np.ones(1)
    for number, p in groups:
        chances = np.convolve(chances, _binomial(number, p))
    return min(1.0, float(chances[hits:].sum()))


def holm(values: Mapping[Name, float]) -> dict[Name, float]:
    """Adjusted p-values: calling those below 5% finds anything in a set without effects at most 5% of the time."""
    ordered = sorted(values, key=lambda name: values[name])
    adjusted: dict[Name, float] = {}
    highest = 0.0
    for rank, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - rank) * values[name]))
        adjusted[name] = highest
    return adjusted


def num_testable(least: Sequence[float], level: float) -> int:
    """By how much a p-value of a large family must be multiplied (Tarone 1990).

    A hypothesis whose margins cannot give a p below level / k cannot be called wrongly, and need not be counted.
    """
    ordered = sorted(least)
    count = 1
    while sum(value <= level / count for value in ordered) > count:
        count += 1
    return count


def _hypergeometric(stratum: Stratum) -> tuple[int, FloatArray]:
    """The least number of hits that can fall on the rows, and the chances of it and of each number above."""
    rows, others = stratum.rows, stratum.others
    hits = stratum.hits + stratum.others_hit
    first, last = max(0, hits - others), min(hits, rows)
    k = np.arange(first, last + 1)
    logs = _choose(rows, k) + _choose(others, hits - k) - _choose(rows + others, np.array([hits]))
    return first, np.exp(logs)


def _binomial(number: int, p: float) -> FloatArray:
    k = np.arange(number + 1)
    chances: FloatArray = np.exp(_choose(number, k) + k * math.log(p) + (number - k) * math.log1p(-p))
    return chances


_log_factorials = np.zeros(1)


def _choose(number: int, k: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    """ln of number over k."""
    global _log_factorials
    if len(_log_factorials) <= number:
        size = max(1024, 2 * (number + 1))
        _log_factorials = np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, size)))])
    found: FloatArray = _log_factorials[number] - _log_factorials[k] - _log_factorials[number - k]
    return found
