"""A saturating power law through a few sizes, with a bootstrap over held-out rows and seeds; numpy alone.

    power         value(n) = plateau - gap * n ** -exponent                          loss, most text metrics
    threshold     value(n) = plateau - gap / (1 + (n / scale) ** exponent)           exact match: nothing, then much

Far above `scale` the second is the first; below it, it stays at the base, which is its value at n = 0. The form with
the smaller AIC on the sizes is taken, in each resample anew, so that the choice is part of the interval. For losses
`gap` is below zero. Given exponent and scale the rest is linear, so the fit is a search over a grid, the same for all
resamples at once, with the plateau kept within what the metric can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 1000
EXPONENTS = np.geomspace(0.08, 4.0, 24)
SCALES = 16
POWER, THRESHOLD = 0, 1
FORMS = ("power", "threshold")


@dataclass(frozen=True, slots=True)
class Laws:
    """Fitted laws, one in each place of the arrays: the first is of the data, the others of its resamples."""

    form: NDArray[np.int64]
    plateau: Array
    gap: Array
    exponent: Array
    scale: Array
    base: Array

    def at(self, rows: float) -> Array:
        """Each law's value with so many rows."""
        power = (rows / self.scale) ** -self.exponent if rows > 0 else np.full_like(self.scale, np.inf)
        threshold = 1 / (1 + (rows / self.scale) ** self.exponent)
        left = np.where(self.form == POWER, power, threshold)
        with np.errstate(invalid="ignore"):
            return np.where(self.gap == 0, self.plateau, self.plateau - self.gap * left)

    def rows_at(self, share: float) -> Array:
        """With how many rows each law has gone so much of the way from the base to its plateau; 0 where none is."""
        way = self.plateau - self.base
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            left = np.where(self.gap == 0, np.inf, (1 - share) * way / self.gap)
            power = self.scale * left ** (-1 / self.exponent)
            threshold = self.scale * np.maximum(1 / left - 1, 0) ** (1 / self.exponent)
        found = np.where(self.form == POWER, power, threshold)
        return np.where(np.isfinite(left) & (left > 0), found, 0.0)

    def gain(self, rows: int, more: int) -> Array:
        """What so many rows more change, by each law."""
        return self.at(rows + more) - self.at(rows)


def interval(values: Array, confidence: float = 0.95) -> tuple[float, float]:
    """The percentiles of the resamples around the first value."""
    outside = (1 - confidence) / 2
    low, high = np.quantile(values[1:], [outside, 1 - outside])
    return float(min(low, values[0])), float(max(high, values[0]))


def fit(
    sizes: Sequence[int],
    outcomes: Sequence[Array],
    base: Array,
    *,
    higher_is_better: bool,
    bounds: tuple[float, float],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Laws:
    """The law through the sizes: `outcomes[k]` is (seeds, rows) of the size k, `base` (rows,) of the base model.

    The held-out rows are the same for all, so they are resampled together; seeds are resampled for each size, and
    their spread is widened by what few of them hide (3 seeds: by the root of 3 / 2).
    """
    values = resample(outcomes, base, resamples=resamples, seed=seed)
    if bounds[1] < np.inf:
        values = np.clip(values, *bounds)
    sign = 1.0 if higher_is_better else -1.0
    low, high = sorted((sign * bounds[0], sign * bounds[1]))
    weights = _weights(outcomes)
    laws = _search(np.array(sizes, dtype=np.float64), sign * values, weights, (low, high))
    return Laws(laws.form, sign * laws.plateau, sign * laws.gap, laws.exponent, laws.scale, values[:, 0])


def resample(outcomes: Sequence[Array], base: Array, *, resamples: int, seed: int) -> Array:
    """Values (1 + resamples, 1 + sizes): the base first; the first line is the data itself."""
    random = np.random.Generator(np.random.Philox(seed))
    n = len(base)
    counts = random.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64) / n
    shares = np.vstack([np.full(n, 1 / n), counts])
    columns = [shares @ base]
    for own in outcomes:
        by_seed = shares @ own.T  # (1 + resamples, seeds)
        seeds = own.shape[0]
        middle = by_seed.mean(axis=1)
        drawn = random.integers(0, seeds, size=(resamples, seeds))
        strayed = np.take_along_axis(by_seed[1:], drawn, axis=1).mean(axis=1) - middle[1:]
        middle[1:] += strayed * np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
        columns.append(middle)
    return np.column_stack(columns)


def _weights(outcomes: Sequence[Array]) -> Array:
    """One for the base, then each size's: less where seeds or rows spread more, none more than four times another."""
    variances = []
    for own in outcomes:
        seeds, rows = own.shape
        between = own.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else 0.0
        variances.append(between + own.mean(axis=0).var() / rows)
    floor = max(float(np.median(variances)), 1e-12)
    weights = floor / np.clip(variances, floor / 2, floor * 2)
    return np.concatenate([[1.0], weights])


def _search(sizes: Array, values: Array, weights: Array, bounds: tuple[float, float]) -> Laws:
    """Both forms, the better one for each line of `values`; larger values are better here."""
    middle = float(np.exp(np.log(sizes).mean()))
    scales = np.geomspace(sizes.min() / 3, sizes.max() * 3, SCALES)
    grid = (EXPONENTS, np.array([middle])), (EXPONENTS, scales)
    found, scores = [], []
    for kind, (exponents, of_scale) in zip((POWER, THRESHOLD), grid, strict=True):
        given = (values[:, 1:], weights[1:]) if kind == POWER else (values, weights)
        at = tuple(axis.ravel() for axis in np.meshgrid(exponents, of_scale, indexing="ij"))
        fitted = _linear(_left(kind, sizes, *at), *given, bounds)
        plateau, gap, exponent, scale = (*fitted[:2], *(axis[fitted[2]] for axis in at))
        for width in (1.0, 0.2):  # a finer grid around each line's own best, twice
            at = _around(exponent, scale, width, moves=kind == THRESHOLD)
            plateau, gap, best = _linear(_left(kind, sizes, *at), *given, bounds)
            exponent, scale = (np.take_along_axis(axis, best[:, None], 1)[:, 0] for axis in at)
        left = _left(kind, sizes, exponent, scale)[:, -len(sizes) :]
        error = (weights[1:] * (values[:, 1:] - (plateau[:, None] - gap[:, None] * left)) ** 2).sum(1)
        floor = 1e-6 * (weights[1:] * (values[:, 1:] - values[:, 1:].mean(1, keepdims=True)) ** 2).sum(1)
        scores.append(len(sizes) * np.log(error + floor + 1e-12) + 2 * (3 + kind))
        found.append((plateau, gap, exponent, scale))
    form = (scores[1] < scores[0]).astype(np.int64)
    plateau, gap, exponent, scale = (
        np.where(form == POWER, one, two) for one, two in zip(found[0], found[1], strict=True)
    )
    return Laws(form, plateau, gap, exponent, scale, values[:, 0])


def _left(form: int, sizes: Array, exponent: Array, scale: Array) -> Array:
    """The share of the gap that is left at each size (..., P); a threshold has the base before them, where all is."""
    ratio = (sizes / scale[..., None]) ** exponent[..., None]
    if form == POWER:
        return np.asarray(1 / ratio)
    return np.concatenate([np.ones((*exponent.shape, 1)), 1 / (1 + ratio)], axis=-1)


def _around(exponent: Array, scale: Array, width: float, *, moves: bool) -> tuple[Array, Array]:
    """Exponents and scales (R, G) about those of each line; the scale of a power law is only a unit."""
    steps = np.linspace(-1, 1, 9) * width
    one, two = (axis.ravel() for axis in np.meshgrid(steps, steps if moves else [0.0], indexing="ij"))
    ratio = float(np.log(EXPONENTS[1] / EXPONENTS[0]))
    return exponent[:, None] * np.exp(one * ratio), scale[:, None] * np.exp(2 * two * ratio)


def _linear(
    left: Array, values: Array, weights: Array, bounds: tuple[float, float]
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Plateau and gap for every line of `values` (R, P) at its best place of a grid (G, P) or (R, G, P)."""
    total = weights.sum()
    u, uu = left @ weights, (left**2) @ weights
    y, yy = values @ weights, (values**2) @ weights
    uy = (left @ (values * weights)[:, :, None])[:, :, 0] if left.ndim == 3 else (values * weights) @ left.T
    spread = np.maximum(total * uu - u * u, 1e-12)
    gap = np.maximum((u * y[:, None] - total * uy) / spread, 0.0)
    free = (y[:, None] + gap * u) / total
    plateau = np.clip(free, *bounds)
    gap = np.where(plateau == free, gap, np.maximum((plateau * u - uy) / np.maximum(uu, 1e-12), 0.0))
    error = (
        yy[:, None] - 2 * plateau * y[:, None] + 2 * gap * uy
        + plateau**2 * total - 2 * plateau * gap * u + gap**2 * uu
    )  # fmt: skip
    best = error.argmin(axis=1)
    lines = np.arange(len(values))
    return plateau[lines, best], gap[lines, best], best


def describe(laws: Laws) -> Mapping[str, Any]:
    """A law as curve.json holds it: the interval is the plateau's."""
    return {
        "form": FORMS[int(laws.form[0])],
        "plateau": float(laws.plateau[0]),
        "exponent": float(laws.exponent[0]),
        "scale": float(laws.scale[0]),
        "gap": float(laws.gap[0]),
        "interval": list(interval(laws.plateau)),
    }
