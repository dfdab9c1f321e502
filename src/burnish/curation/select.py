"""Which N rows to train on: good ones that are unlike each other.

    candidates   the better part by quality, every source its share
    k-centre     the next row is the one farthest from all that are in          spread: odd rows first
    facility     the next row is the one that most rows come nearer to          cover: typical rows first

Each is mixed with quality: 0 is diversity alone, 1 quality alone. Both are greedy, deterministic given the seed, and
take memory for the points and no more. A chosen row knows why it is in.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np

from burnish.errors import DataError

Points = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Values = np.ndarray[tuple[int], np.dtype[np.float64]]
Method = Literal["k-centre", "facility"]

DIMENSIONS = 512
REFERENCES = 2048
"""Cover is measured on so many rows, drawn once: its error is about 1 / sqrt(2048)."""
MISSES = 0.01
"""The greedy step looks at a sample of rows that holds one of the best N with a chance of 99%."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Choice:
    """A row that is in: its place in the order of choice, and why. `distance` is to the nearest row chosen before."""

    index: int
    rank: int
    source: str
    quality: float | None
    percentile: float
    distance: float
    nearest: int | None
    gain: float

    def why(self, name_of: Callable[[int], str]) -> str:
        """The reason in words; `name_of` says where a row stands."""
        parts = [f"choice {self.rank + 1} of {self.source}" if self.source else f"choice {self.rank + 1}"]
        if self.quality is not None:
            parts.append(f"score {self.quality:.4g}, above {self.percentile:.0%} of the rows")
        if self.nearest is None:
            parts.append("the first, nearest to the middle" if not self.gain else "the first")
        else:
            parts.append(f"{self.distance:.2f} from the nearest one chosen before, {name_of(self.nearest)}")
        return "; ".join(parts)


def tf_idf(texts: Sequence[str], *, dimensions: int = DIMENSIONS) -> Points:
    """One unit vector per text: words weighed by rarity, hashed with a sign into `dimensions` (Weinberger 2009)."""
    bags = [Counter(_WORD.findall(text.casefold())) for text in texts]
    spread = Counter(word for bag in bags for word in bag)
    places: dict[str, tuple[int, float]] = {}
    for word, count in spread.items():
        digest = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
        weight = math.log((1 + len(texts)) / (1 + count)) + 1
        places[word] = (digest % dimensions, weight if digest >> 63 else -weight)
    points = np.zeros((len(texts), dimensions), dtype=np.float32)
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            place, weight = places[word]
            points[row, place] += (1 + math.log(count)) * weight
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    found: Points = points / np.maximum(lengths, 1e-12)
    return found


def percentiles(quality: Sequence[float | None]) -> Values:
    """Each row's share of rows that are worse, ties in the middle; rows without a score are at 0."""
    known = np.array([-np.inf if q is None or math.isnan(q) else q for q in quality])
    ordered = np.sort(known)
    below, upto = np.searchsorted(ordered, known, "left"), np.searchsorted(ordered, known, "right")
    found: Values = (below + upto - 1) / 2 / max(1, len(known) - 1)
    return np.where(np.isneginf(known), 0.0, found)


def shares(sources: Sequence[str], number: int, *, equal: bool) -> dict[str, int]:
    """How many rows each source gives: by its size, or equally; what a small one lacks goes to the others."""
    sizes = Counter(sources)
    if number > sizes.total():
        raise DataError(
            f"{number:,} rows wanted of {sizes.total():,}", rule="one cannot select more rows than there are",
            remedy=f"ask for at most {sizes.total():,}",
        )  # fmt: skip
    weights = {name: 1.0 if equal else float(size) for name, size in sizes.items()}
    given: dict[str, int] = {}
    while full := [
        name
        for name in weights
        if (number - sum(given.values())) * weights[name] >= sizes[name] * sum(weights.values())
    ]:
        for name in full:
            given[name] = sizes[name]
            del weights[name]
    left = number - sum(given.values())
    exact = {name: left * weight / sum(weights.values()) for name, weight in weights.items()}
    given |= {name: int(value) for name, value in exact.items()}
    # what rounding down leaves goes, one each, to the largest remainders
    by_remainder = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    for name in by_remainder[: number - sum(given.values())]:
        given[name] += 1
    return {name: given[name] for name in sizes}


def select(
    points: Points,
    number: int,
    *,
    quality: Sequence[float | None] | None = None,
    sources: Sequence[str] | None = None,
    method: Method = "k-centre",
    quality_weight: float = 0.5,
    keep_best: float = 1.0,
    equal: bool = False,
    seed: int = 0,
) -> list[Choice]:
    """The rows to keep, source by source, in the order of choice.

    `keep_best` is the share of each source, by quality, that is looked at at all: LIMA's way is a small share of good
    rows, and diversity among them. It never falls below what the source must give.
    """
    named = list(sources) if sources is not None else [""] * len(points)
    known = list(quality) if quality is not None else [None] * len(points)
    ranks = percentiles(known)
    weight = quality_weight if quality is not None else 0.0
    chosen: list[Choice] = []
    for source, wanted in shares(named, number, equal=equal).items():
        members = np.array([k for k, name in enumerate(named) if name == source])
        best = max(wanted, math.ceil(keep_best * len(members)))
        pool = np.sort(members[np.argsort(-ranks[members], kind="stable")[:best]])
        greedy = _k_centre if method == "k-centre" else _facility
        picks = greedy(points[pool], ranks[pool], wanted, weight, seed)
        chosen += _explained(picks, pool, points, source, known, ranks)
    return chosen


def _k_centre(
    points: Points, quality: Values, number: int, weight: float, seed: int
) -> Iterator[tuple[int, float]]:
    """Farthest first (Gonzalez 1985): each step costs one product of the points with one of them."""
    middle = points.mean(axis=0)
    value = (1 - weight) * (points @ middle).astype(np.float64) + weight * quality
    nearest = np.full(len(points), np.inf)
    taken = np.zeros(len(points), dtype=bool)
    for step in range(number):
        if step:
            # distances of unit vectors lie between 0 and 2
            value = (1 - weight) * nearest / 2 + weight * quality
        pick = int(np.argmax(np.where(taken, -np.inf, value)))
        taken[pick] = True
        yield pick, float(value[pick]) if step else 0.0
        nearest = np.minimum(nearest, _distances(points, points[pick]))


def _facility(
    points: Points, quality: Values, number: int, weight: float, seed: int
) -> Iterator[tuple[int, float]]:
    """Stochastic greedy on cover (Mirzasoleiman 2015): each step looks at a drawn sample of the rows left."""
    draw = np.random.default_rng([seed, len(points)])
    references = points[draw.permutation(len(points))[:REFERENCES]]
    cover = np.zeros(len(references), dtype=np.float32)
    left = draw.permutation(len(points))
    size = min(len(points), math.ceil(len(points) / number * math.log(1 / MISSES)))
    for _ in range(number):
        places = draw.permutation(len(left))[:size] if size < len(left) else np.arange(len(left))
        sample = left[places]
        near = np.maximum(points[sample] @ references.T, 0.0)
        gains = np.maximum(near - cover, 0.0).mean(axis=1).astype(np.float64)
        value = (1 - weight) * gains * number + weight * quality[sample]
        best = int(np.argmax(value))
        cover = np.maximum(cover, near[best])
        yield int(sample[best]), float(gains[best])
        left = np.delete(left, places[best])


def _explained(
    picks: Iterator[tuple[int, float]],
    pool: np.ndarray[tuple[int], np.dtype[np.int64]],
    points: Points,
    source: str,
    quality: Sequence[float | None],
    ranks: Values,
) -> Iterator[Choice]:
    earlier: list[int] = []
    for rank, (pick, gain) in enumerate(picks):
        index = int(pool[pick])
        distance, nearest = math.nan, None
        if earlier:
            distances = _distances(points[earlier], points[index])
            nearest = earlier[int(np.argmin(distances))]
            distance = float(distances.min())
        yield Choice(index, rank, source, quality[index], float(ranks[index]), distance, nearest, gain)
        earlier.append(index)


def _distances(points: Points, point: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Values:
    found: Values = np.sqrt(np.maximum(2 - 2 * (points @ point).astype(np.float64), 0.0))
    return found
