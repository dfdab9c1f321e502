"""A pack cut for several ranks, each of which computes some of its tokens: the other half of context parallelism.

A document of 16 tokens on 2 ranks. Token k sees k + 1 keys, so halves would be 36 and 100 pairs of work; pieces
dealt by cost are 68 and 68:

    pieces      0 1 2 3 | 4 5 6 7 | 8 9 10 11 | 12 13 14 15
    cost           10        26         42           58
    rank             0         1          1            0

A shard keeps the positions of its tokens and their targets: what a token is graded against stands beside it since
the pack was built (`data.pack` shifts), so a border between two shards changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from burnish.data.pack import IntArray, Pack, Segment

PIECES = (2, 4, 8, 16)
"""How many pieces a rank may get: the fewest that balance the work, for each border costs attention a tile."""
UNEVEN = 1.05
"""How much more than its share the busiest rank may have before smaller pieces are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard(Pack):
    """One rank's part of `whole`: its tokens' ids, positions and reach, and the targets that they predict.

    `reach` counts in the whole pack, `rows_kept` in the shard. `holdings` are the tokens of every rank, ascending, as
    places in the whole; `graded` says which of the whole's targets are here. `segments` and `leaves` are empty: a
    shard's attention goes by `reach` alone.
    """

    whole: Pack
    rank: int
    holdings: tuple[IntArray, ...]
    graded: IntArray

    @property
    def held(self) -> IntArray:
        """Where its tokens stand in the whole."""
        return self.holdings[self.rank]


def shard_pack(pack: Pack, ranks: int) -> tuple[Shard, ...]:
    """A pack dealt to ranks: each token and each target to exactly one; a pure function.

    ValueError where there are fewer tokens than ranks: every rank computes something.
    """
    if len(pack) < ranks:
        raise ValueError(f"a pack of {len(pack)} tokens cannot be dealt to {ranks} ranks")
    holdings = deal_tokens(pack, ranks)
    return tuple(_shard(pack, rank, holdings) for rank in range(ranks))


def attention_cost(pack: Pack) -> IntArray:
    """For each token, how many keys it sees."""
    return pack.position_ids + 1


def deal_tokens(pack: Pack, ranks: int) -> tuple[IntArray, ...]:
    """Each rank's tokens, ascending: about as many for each, and about as many keys to look at."""
    cost = attention_cost(pack)
    dealt: list[list[int]] = []
    bounds = np.array([0, len(pack)])
    for pieces in PIECES:
        count = min(pieces * ranks, len(pack))
        bounds = np.linspace(0, len(pack), count + 1).astype(np.int64)
        dealt = _deal(np.add.reduceat(cost, bounds[:-1]), ranks)
        if _busiest(cost, bounds, dealt) <= UNEVEN * cost.sum() / ranks or count == len(pack):
            break
    return tuple(
        np.concatenate([np.arange(bounds[piece], bounds[piece + 1]) for piece in sorted(mine)])
        for mine in dealt
    )


def _deal(costs: IntArray, ranks: int) -> list[list[int]]:
    """The costliest piece first, to the rank with the least work that may still take one."""
    most = -(-len(costs) // ranks)
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    work = [0] * ranks
    spare = most * ranks - len(costs)  # where pieces do not come out even, so many ranks end with one fewer
    for piece in np.argsort(-costs, kind="stable").tolist():
        room = [r for r in range(ranks) if len(dealt[r]) < most - (_full(dealt, most) >= ranks - spare)]
        chosen = min(room, key=lambda rank: (work[rank], rank))
        dealt[chosen].append(piece)
        work[chosen] += int(costs[piece])
    return dealt


def _full(dealt: list[list[int]], most: int) -> int:
    return sum(len(mine) == most for mine in dealt)


def _busiest(cost: IntArray, bounds: IntArray, dealt: list[list[int]]) -> int:
    sums = np.add.reduceat(cost, bounds[:-1])
    return max(int(sums[mine].sum()) for mine in dealt)


def _shard(pack: Pack, rank: int, holdings: tuple[IntArray, ...]) -> Shard:
    held = holdings[rank]
    predicts = pack.predicts
    graded = np.flatnonzero(np.isin(predicts, held))
    rows_kept, row_of = np.unique(np.searchsorted(held, predicts[graded]), return_inverse=True)
    return Shard(
        input_ids=pack.input_ids[held],
        position_ids=pack.position_ids[held],
        reach=pack.reach[held],
        segments=(),
        rows_kept=rows_kept.astype(np.int64),
        row_of=row_of.astype(np.int64),
        targets=pack.targets[graded],
        weights=pack.weights[graded],
        sources=pack.sources[graded],
        rows=pack.rows,
        leaves=(),
        padding=int((held >= len(pack) - pack.padding).sum()),
        whole=pack,
        rank=rank,
        holdings=holdings,
        graded=graded,
    )


def beginning(pack: Pack, tokens: int) -> Pack:
    """The first tokens of a pack as a pack of its own, nothing graded: small, and alike on every rank."""
    stop = min(tokens, len(pack))
    kept = [segment for segment in pack.segments if segment.start < stop]
    return Pack(
        input_ids=pack.input_ids[:stop],
        position_ids=pack.position_ids[:stop],
        reach=pack.reach[:stop].clip(max=stop),
        segments=tuple(Segment(s.start, min(s.end, stop), s.parent) for s in kept),
        rows_kept=np.arange(max(0, stop - 8), stop),
        row_of=np.zeros(0, dtype=np.int64),
        targets=np.zeros(0, dtype=np.int64),
        weights=np.zeros(0, dtype=np.float32),
        sources=np.zeros(0, dtype=np.int64),
        rows=pack.rows,
        leaves=(),
    )
