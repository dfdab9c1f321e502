"""How sure one can be: intervals around a share, a mean and a difference, at 95% unless said otherwise.

98 of 100 exact            wilson_interval(98, 100)              (0.930, 0.994)
wins 1, 0.5, 0, 0.93, ...  mean_interval(wins)                   Wilson's, with the fractions' own spread
two models, same prompts   paired_interval(wins_a - wins_b)      bootstrap over prompts
loss over rows of tokens   ratio_interval(nll, tokens)           bootstrap over rows, sum over sum
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from burnish.curation.rates import quantile_of_normal, wilson_interval

__all__ = ["mean_interval", "paired_interval", "quantile_of_normal", "wilson_interval"]

Array = NDArray[np.float64]

RESAMPLES = 2000
_CELLS = 1 << 22  # how many draws of the bootstrap are held at once


def mean_interval(outcomes: Array, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a mean of outcomes in 0..1: Wilson's, for as many plain wins and losses as would spread alike.

    Ties and fractions spread less than wins and losses, so they count for more trials: 100 outcomes with half the
    spread are worth 200 that are all 0 or 1. On outcomes that are 0 or 1 it is Wilson's own.
    """
    n = len(outcomes)
    if n == 0:
        return 0.0, 1.0
    p = min(1.0, max(0.0, float(outcomes.mean())))
    plain, seen = p * (1 - p), float(outcomes.var())
    if plain <= 0:
        return wilson_interval(p * n, n, confidence=confidence)
    trials = n * plain / max(seen, plain / n)
    return wilson_interval(p * trials, trials, confidence=confidence)


def paired_interval(
    differences: Array, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of a mean over prompts, each of which was put to both models.

    The percentiles are taken a little further out than 2.5 and 97.5, as far as Student's t is wider than a bell curve
    on so many prompts: plain percentiles are too narrow on few of them (Hesterberg 2015).
    """
    n = len(differences)
    if n < 2:
        return (float(differences[0]),) * 2 if n else (math.nan, math.nan)
    random = np.random.Generator(np.random.Philox(seed))
    most = max(1, _CELLS // n)
    means = np.concatenate(
        [
            differences[random.integers(0, n, size=(min(most, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, most)
        ]
    )
    outside = NormalDist().cdf(-math.sqrt(n / (n - 1)) * _quantile_of_t(confidence, n - 1))
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)


def ratio_interval(
    above: Array, below: Array, *, less: tuple[Array, Array] | None = None, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of sum(above) / sum(below) over rows, 95%; of its difference to another ratio, `less`.

    Rows are drawn, not tokens: the tokens of one row go together. Both ratios are taken on the same rows.
    """
    n = len(above)
    if n < 2:
        return math.nan, math.nan
    random = np.random.Generator(np.random.Philox(seed))
    most = max(1, _CELLS // n)
    ratios = []
    for start in range(0, RESAMPLES, most):
        drawn = random.integers(0, n, size=(min(most, RESAMPLES - start), n))
        found = _ratio(above[drawn], below[drawn])
        ratios.append(found if less is None else found - _ratio(less[0][drawn], less[1][drawn]))
    every = np.concatenate(ratios)
    every = every[np.isfinite(every)]
    if not len(every):
        return math.nan, math.nan
    outside = NormalDist().cdf(-math.sqrt(n / (n - 1)) * _quantile_of_t(0.95, n - 1))
    low, high = np.quantile(every, [outside, 1 - outside])
    return float(low), float(high)


def _ratio(above: Array, below: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = above.sum(axis=1) / below.sum(axis=1)
    return found


def _quantile_of_t(confidence: float, freedom: int) -> float:
    """Student's quantile by two terms of its series: 2.045 with 29 degrees of freedom."""
    z = quantile_of_normal(confidence)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
