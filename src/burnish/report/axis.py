"""The scale of an axis: where a value lies, and which round values are marked.

Axis.over([0.03, 0.97]).ticks      (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
Axis.over([0.01, 3.0], log=True)   marks 0.01, 0.1, 1
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from burnish.report.words import large

SPREAD_FOR_LOG = 40.0
"""Positive values that span this factor are drawn on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high`, drawn from 0 to 1."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def over(
        cls, values: Iterable[float], *, log: bool = False, num_ticks: int = 5, tight: bool = False
    ) -> Axis:
        """An axis that holds all values; `tight` ends at them, else it ends at round values."""
        found = sorted(value for value in values if not log or value > 0) or [1.0 if log else 0.0]
        low, high = found[0], found[-1]
        if log:
            return cls._log(low, high, num_ticks, tight)
        if high - low <= 1e-9 * max(abs(high), abs(low)):
            pad = abs(high) / 2 or 0.5
            low, high = low - pad, high + pad
        step = round_step((high - low) / num_ticks)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        marks = tuple(round(k * step, 12) for k in range(first, last + 1))
        if tight:
            return cls(low, high, tuple(mark for mark in marks if low - 1e-12 <= mark <= high + 1e-12))
        return cls(marks[0], marks[-1], marks)

    @classmethod
    def _log(cls, low: float, high: float, num_ticks: int, tight: bool) -> Axis:
        if high / low < 1.5:
            low, high = low / 1.5, high * 1.5
        exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        round_ones = [float(f"{step}e{e}") for e in exponents for step in (1, 2, 5)]
        if not tight:
            low = max(mark for mark in round_ones if mark <= low * 1.0001)
            high = min(mark for mark in round_ones if mark >= high * 0.9999)
        # Whole decades where there are enough of them, else the finest marks that are not too many.
        for steps in (range(1, 10), (1, 2, 5), (1,)):
            marks = [float(f"{step}e{e}") for e in exponents for step in steps]
            inside = [mark for mark in marks if low * 0.9999 <= mark <= high * 1.0001]
            if len(inside) <= num_ticks + 1:
                break
        every = math.ceil(len(inside) / (num_ticks + 1)) or 1
        return cls(low, high, tuple(inside[::every]), log=True)

    def at(self, value: float) -> float:
        """Where a value lies, 0 to 1; values outside are drawn at the end."""
        if self.log:
            if value <= 0:
                return 0.0
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, part))


def round_step(step: float) -> float:
    """The round number nearest above a step: 0.13 -> 0.2."""
    size = 10.0 ** math.floor(math.log10(step))
    return next(each * size for each in (1, 2, 2.5, 5, 10) if each * size >= step * 0.999)


def wants_log(values: Iterable[float]) -> bool:
    """Whether values are all positive and span so much that only a logarithm shows them all."""
    found = list(values)
    return bool(found) and min(found) > 0 and max(found) / min(found) > SPREAD_FOR_LOG


def mark(value: float) -> str:
    """A tick's words: 0.05, 1,000, 2 million."""
    if abs(value) >= 1e6:
        return large(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return (
        f"{value:.4g}".replace("-", "−")
        if abs(value) >= 1e-4 or value == 0
        else f"{value:.0e}".replace("e-0", "e-")
    )
