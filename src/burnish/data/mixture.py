"""A mixture: how many rows of each source an epoch holds, and where they stand, as values of the plan.

Three sources of 1000, 200 and 50 rows, `mixture: weights`, mix 2, 1, 1:

    on_exhausted   counts of an epoch     it ends
    stop           100   50   50          when the first source is used up; the shares hold
    repeat        1000  500  500          when the last one is; small ones are gone through again; the shares hold
    drop          1000  200   50          when all are; the shares hold among those that are left

Counts are worked out in whole numbers and fractions, so that they are the same everywhere. Where a source's count is
no multiple of its rows, the next epoch goes on where this one ended: row `p` of a source's endless stream is row
`p mod n` of its pass `p div n`, each pass in an order of its own. So nothing is remembered from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

import numpy as np

from burnish.recipe.choices import Exhausted, MixtureRule

RowNumbers = np.ndarray[tuple[int], np.dtype[np.uint32]]
Times = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a recipe says of one source that has `rows` rows: at most `limit` of them are used in an epoch."""

    source: int
    rows: int
    limit: int
    mix: float = 1.0
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One source in an epoch: rows `first` to `first + rows` of the training set, of which `count` are taken.

    `rate` is how fast it flows while it does: its share, or anything in proportion to it.
    """

    source: int
    first: int
    rows: int
    count: int
    rate: float


@dataclass(frozen=True, slots=True)
class Mixture:
    """The parts of an epoch. Spread, each flows evenly at its rate; otherwise they are shuffled as one.

    `replay`, where there is one, is spread over the whole in both cases.
    """

    parts: tuple[Part, ...]
    spread: bool = False
    replay: Part | None = None

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """The parts, that of replay last."""
        return self.parts if self.replay is None else (*self.parts, self.replay)

    @property
    def length(self) -> int:
        """Rows of an epoch, repeated ones counted as often as they come."""
        return sum(part.count for part in self.all_parts)

    def order(self, epoch: int, *, seed: int, shuffle: bool) -> RowNumbers:
        """The rows of an epoch in order; the same whenever it is asked."""
        return _order(self, epoch, seed, shuffle)


def plain_mixture(num_rows: int) -> Mixture:
    """All rows as one source, each once."""
    return Mixture((Part(0, 0, num_rows, num_rows, 1.0),))


def asked_shares(
    asks: Sequence[Ask],
    rule: MixtureRule,
    *,
    temperature: float = 1.0,
    groups: Mapping[str, float] | None = None,
) -> list[Fraction]:
    """The share of each source, dealt to groups first; a source without rows has none."""
    kinds = [ask.group if ask.group is not None else ask.source for ask in asks]
    members = {kind: [ask for ask, its in zip(asks, kinds, strict=True) if its == kind] for kind in kinds}
    of_group = {
        kind: _weight(sum(ask.limit for ask in them), (groups or {}).get(str(kind), 1.0), rule, temperature)
        if them[0].group is not None
        else _weight(them[0].limit, them[0].mix, rule, temperature)
        for kind, them in members.items()
    }
    total = sum(of_group.values())
    shares = []
    for ask, kind in zip(asks, kinds, strict=True):
        own = _weight(ask.limit, ask.mix, rule, temperature)
        beside = sum(_weight(each.limit, each.mix, rule, temperature) for each in members[kind])
        shares.append(own / beside * of_group[kind] / total if own else Fraction(0))
    return shares


def _weight(limit: int, mix: float, rule: MixtureRule, temperature: float) -> Fraction:
    match rule:
        case _ if not limit:
            return Fraction(0)
        case MixtureRule.WEIGHTS:
            return Fraction(mix)
        case MixtureRule.TEMPERATURE:
            return Fraction(float(limit) ** (1.0 / temperature))
        case MixtureRule.CONCAT | MixtureRule.PROPORTIONAL:
            return Fraction(limit)


def counts_of(limits: Sequence[int], shares: Sequence[Fraction], rule: Exhausted) -> list[int]:
    """How many rows of each source an epoch holds; those of `stop` and `repeat` are the shares to within a row."""
    if rule == Exhausted.DROP:
        return list(limits)
    reaches = [limit / share for limit, share in zip(limits, shares, strict=True) if share]
    total = 0 if not reaches else floor(min(reaches)) if rule == Exhausted.STOP else ceil(max(reaches))
    return apportion(total, shares)


def apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """`total` in whole parts: each is its share rounded down, and the largest remainders get one more."""
    exact = [total * share for share in shares]
    counts = [floor(part) for part in exact]
    first = sorted(range(len(exact)), key=lambda k: (counts[k] - exact[k], k))
    for k in first[: (total if any(shares) else 0) - sum(counts)]:
        counts[k] += 1
    return counts


def mix(
    asks: Sequence[Ask],
    rule: MixtureRule,
    exhausted: Exhausted = Exhausted.REPEAT,
    *,
    temperature: float = 1.0,
    groups: Mapping[str, float] | None = None,
) -> Mixture:
    """The mixture that is asked for; sources are numbered as they lie end to end in the training set."""
    shares = asked_shares(asks, rule, temperature=temperature, groups=groups)
    limits = [ask.limit for ask in asks]
    spread = rule != MixtureRule.CONCAT
    counts = counts_of(limits, shares, exhausted) if spread else limits
    parts, first = [], 0
    for ask, count, share in zip(asks, counts, shares, strict=True):
        parts.append(Part(ask.source, first, ask.rows, count, float(share)))
        first += ask.rows
    return Mixture(tuple(parts), spread)


def with_replay(
    mixture: Mixture, *, source: int, rows: int, share: float, graded: float, replayed: float
) -> Mixture:
    """The mixture with `share` of its graded tokens from one more source, the last of the training set.

    An epoch has `graded` graded tokens without it; a row of it has `replayed` on average. It repeats where it must.
    """
    wanted = graded * share / (1.0 - share)
    count = max(1, round(wanted / replayed)) if rows else 0
    last = max(mixture.parts, key=lambda part: part.first)
    end = max((part.count / part.rate for part in mixture.parts if part.count), default=1.0)
    rate = count / (end if mixture.spread else 1.0)
    return Mixture(mixture.parts, mixture.spread, Part(source, last.first + last.rows, rows, count, rate))


@lru_cache(maxsize=2)
def _order(mixture: Mixture, epoch: int, seed: int, shuffle: bool) -> RowNumbers:
    streams = [(part, _taken(part, epoch, seed, shuffle, mixture.spread)) for part in mixture.parts]
    if mixture.spread:
        timed = [(rows, _times(part, epoch, seed, shuffle)) for part, rows in streams]
    else:
        rows = np.concatenate([rows for _, rows in streams])
        rows = rows[permutation(len(rows), seed, epoch)] if shuffle else rows
        timed = [(rows, (np.arange(len(rows)) + 0.5) / max(1, len(rows)))]
        if mixture.replay is None:
            return rows
    if mixture.replay is not None:
        part = mixture.replay
        timed.append((_taken(part, epoch, seed, shuffle, True), _times(part, epoch, seed, shuffle)))
    rows = np.concatenate([rows for rows, _ in timed])
    ordered: RowNumbers = rows[np.argsort(np.concatenate([times for _, times in timed]), kind="stable")]
    return ordered


def _taken(part: Part, epoch: int, seed: int, shuffle: bool, spread: bool) -> RowNumbers:
    """The rows of a part in an epoch: the next `count` of its endless stream of passes."""
    if not part.count:
        return np.empty(0, dtype=np.uint32)
    place = np.arange(epoch * part.count, (epoch + 1) * part.count)
    rows = (place % part.rows).astype(np.uint32)
    # Whole passes that are shuffled afterwards need no order of their own.
    if shuffle and (spread or part.count % part.rows):
        passes = place // part.rows
        for number in range(int(passes[0]), int(passes[-1]) + 1):
            mine = passes == number
            drawn = _generator(seed, number, 2 * part.source + 1).permutation(part.rows)
            rows[mine] = drawn[rows[mine]]
    return rows + np.uint32(part.first)


def _times(part: Part, epoch: int, seed: int, shuffle: bool) -> Times:
    """When each row of a part comes: one in every 1 / rate, somewhere in it."""
    within = _generator(seed, epoch, 2 * part.source + 2).random(part.count) if shuffle else 0.5
    places = np.arange(part.count, dtype=np.float64) + within
    times: Times = np.asarray(places / (part.rate or 1.0), dtype=np.float64)
    return times


@lru_cache(maxsize=2)
def permutation(num_rows: int, seed: int, epoch: int) -> RowNumbers:
    """The rows of one epoch shuffled, kept while that epoch lasts: every step asks for a slice of it."""
    return _generator(seed, epoch).permutation(num_rows).astype(np.uint32)


def _generator(seed: int, number: int, stream: int = 0) -> np.random.Generator:
    # Seeds are below 2**32: the rest of the word tells the streams of one seed apart.
    return np.random.Generator(np.random.Philox(key=[(stream << 32) + seed, number]))
