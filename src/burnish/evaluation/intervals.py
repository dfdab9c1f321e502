"""How sure one can be: intervals around a share, a mean and a difference, at 95% unless said otherwise.

98 of 100 exact            wilson_interval(98, 100)              (0.930, 0.994)
wins 1, 0.5, 0, 0.93, ...  mean_interval(wins)                   Wilson's, with the fractions' own spread
two models, same prompts   paired_interval(wins_a - wins_b)      bootstrap over prompts
loss over rows of tokens   ratio_interval(nll, tokens)           bootstrap over rows, sum over sum
rows asked of 3 seeds      with_seeds(own, interval of rows)     widened by how far seeds stray
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from burnish.curation.rates import quantile_of_normal, wilson_interval

__all__ = ["mean_interval", "paired_interval", "quantile_of_normal", "wilson_interval", "with_seeds"]

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


def with_seeds(
    own: Array, interval: tuple[float, float], *, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """The interval of the mean over rows of `own` (seeds, rows), widened by how far seeds stray.

    Rows that are the same for all seeds leave the seeds' own spread out: three trainings on ten rows may lie ten
    points apart. Each spread has its own Student's quantile, and both are joined as the sides of a right angle. One
    seed tells nothing of how they stray, and leaves the interval as it is.
    """
    seeds, n = own.shape
    if seeds < 2 or n < 2:
        return interval
    by_row, by_seed, value = own.mean(axis=0), own.mean(axis=1), float(own.mean())
    rest = float(((own - by_row - by_seed[:, None] + value) ** 2).sum()) / ((seeds - 1) * (n - 1))
    of_seeds = max(0.0, float(by_seed.var(ddof=1)) - rest / n) / seeds
    strayed = _quantile_of_t(0.95, seeds - 1) * math.sqrt(of_seeds)
    low, high = (math.hypot(value - bound, strayed) for bound in interval)
    return max(bounds[0], value - low), min(bounds[1], value + high)


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
    """Student's quantile: as it is with one and two degrees of freedom, else by three terms of its series."""
    if freedom == 1:
        return math.tan(math.pi * confidence / 2)
    if freedom == 2:
        return confidence * math.sqrt(2 / (1 - confidence**2))
    z = quantile_of_normal(confidence)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
