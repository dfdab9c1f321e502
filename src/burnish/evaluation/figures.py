"""From what each row came to, to figures with an interval: shares by Wilson, sums over sums by bootstrap over rows.

    marks of a row       {"exact_match": (1, 1), "loss": (12.4, 9), "ifeval_instruction_strict": (2, 3)}
    figures of a set     {"exact_match": Figure(value=0.62, low=0.55, high=0.68, n=200, interval="wilson", ...)}

A mark is a numerator and a denominator; a figure is the sum of the one over the sum of the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from burnish.evaluation.intervals import ratio_interval, wilson_interval

Mark = tuple[float, float]
Marks = dict[str, Mark]

LOWER_IS_BETTER = frozenset(
    {"loss", "perplexity", "bits_per_byte", "runaway_rate", "template_leak_rate", "answer_tokens"}
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its 95% interval, from `n` rows; without one, `low` and `high` are None."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    interval: str
    higher_is_better: bool

    def as_dict(self) -> dict[str, Any]:
        """The figure as `evals.json` holds it."""
        return asdict(self)


def kind_of(name: str) -> str:
    """A metric's name without the turn that it is of: `loss` of `loss@answer 2`."""
    return name.partition("@")[0]


def is_higher_better(name: str) -> bool:
    """Whether more of it is better."""
    return kind_of(name) not in LOWER_IS_BETTER


def summarise(rows: Sequence[Mapping[str, Mark]]) -> dict[str, Figure]:
    """Every metric that a row has, over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    found: dict[str, Figure] = {}
    for name in names:
        marks = np.array([row[name] for row in rows if name in row], dtype=np.float64)
        found[name] = _figure(name, marks)
        if kind_of(name) == "loss":
            found[name.replace("loss", "perplexity", 1)] = _exponential(found[name])
    return found


def _figure(name: str, marks: np.ndarray[Any, np.dtype[np.float64]]) -> Figure:
    above, below = marks[:, 0], marks[:, 1]
    total, n, better = float(below.sum()), len(marks), is_higher_better(name)
    if not total:
        return Figure(None, None, None, n, "none", better)
    value = float(above.sum()) / total
    if (below == 1).all() and np.isin(above, (0, 1)).all():
        return Figure(value, *wilson_interval(float(above.sum()), n), n, "wilson", better)
    low, high = ratio_interval(above, below)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Figure(value, None, None, n, "none", better)
    return Figure(value, low, high, n, "bootstrap", better)


def _exponential(loss: Figure) -> Figure:
    value, low, high = (
        None if number is None or number > 700 else math.exp(number)
        for number in (loss.value, loss.low, loss.high)
    )
    return Figure(value, low, high, loss.n, loss.interval, False)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one model is from another on the same rows, with a 95% interval; `clear` where that leaves out 0."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether chance alone would seldom do it."""
        return self.low > 0 or self.high < 0


def differences(
    after: Sequence[Mapping[str, Mark]], before: Sequence[Mapping[str, Mark]]
) -> dict[str, Difference]:
    """By metric, `after` less `before`, paired row by row over the rows that both have."""
    found = {}
    for name in dict.fromkeys(name for row in after for name in row):
        pairs = [(a[name], b[name]) for a, b in zip(after, before, strict=True) if name in a and name in b]
        if len(pairs) < 2:
            continue
        cells = np.array(pairs, dtype=np.float64)
        mine, other = cells[:, 0], cells[:, 1]
        if not mine[:, 1].sum() or not other[:, 1].sum():
            continue
        value = mine[:, 0].sum() / mine[:, 1].sum() - other[:, 0].sum() / other[:, 1].sum()
        low, high = ratio_interval(mine[:, 0], mine[:, 1], less=(other[:, 0], other[:, 1]))
        found[name] = Difference(float(value), low, high)
    return found
