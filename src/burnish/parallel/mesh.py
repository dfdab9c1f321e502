"""The mesh: how the ranks of a run share out its work, derived from the recipe and the number of ranks.

    replicate   every rank holds the whole model; ranks share out the packs of an update
    shard       ranks share out packs and weights: each holds 1/N of every parameter, gradient and moment
    hybrid      weights are shared out within a group of ranks, and the groups are replicas of each other
    context     the ranks of a context group share one pack: each has a part of its tokens

8 ranks on 2 nodes, hybrid, context_parallel 2: 2 replicas x 2 shards x 2 parts of the context. Ranks are numbered with
the context fastest, then the shards, so that those who talk most are neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from burnish.errors import UsageError

DIMENSIONS = ("replicate", "shard", "context")
"""The mesh's dimensions, slowest first; the names under which torch's DeviceMesh has them."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """How many ranks there are along each dimension; `deals`: weights too are shared out, by context ranks as well."""

    replicate: int = 1
    shard: int = 1
    context: int = 1
    deals: bool = field(default=False, compare=False)

    @property
    def size(self) -> int:
        """All ranks."""
        return self.data * self.context

    @property
    def data(self) -> int:
        """Groups of ranks that hold different packs."""
        return self.replicate * self.shard

    @property
    def is_sharded(self) -> bool:
        """Whether a rank holds a part of the weights only."""
        return self.holders > 1

    @property
    def holders(self) -> int:
        """How many ranks have the weights between them: those of a shard group, and who shares their packs."""
        return self.shard * (self.context if self.deals or self.shard > 1 else 1)

    def place(self, rank: int) -> tuple[int, int]:
        """Which packs a rank computes (0 to `data` - 1), and which part of their tokens (0 to `context` - 1)."""
        return divmod(rank, self.context)

    def __str__(self) -> str:
        counts = (
            (self.replicate, "replicas"),
            (self.shard, "shards"),
            (self.context, "parts of the context"),
        )
        said = " x ".join(f"{count} {name}" for count, name in counts if count > 1)
        return f"{self.size} ranks: {said}" if said else "1 rank"


def derive_mesh(
    ranks: int, *, data_parallel: str, context_parallel: int = 1, per_node: int | None = None
) -> Mesh:
    """The mesh of so many ranks, `per_node` of them on each node; UsageError where they do not go into it.

    `hybrid` shards within a node and replicates across nodes; on a single node there are two replicas.
    """
    data, rest = divmod(ranks, context_parallel)
    if rest:
        raise UsageError(
            f"{ranks} ranks, context_parallel: {context_parallel}",
            rule="each context group has context_parallel ranks",
            remedy=f"start a multiple of {context_parallel} ranks, or lower context_parallel",
        )
    if data_parallel == "replicate":
        return Mesh(replicate=data, context=context_parallel)
    if data_parallel == "shard":
        return Mesh(shard=data, context=context_parallel, deals=True)
    within = (per_node or ranks) // context_parallel
    replicas = data // within if 0 < within < data and data % within == 0 else 2
    if data % replicas or data == 1:
        raise UsageError(
            f"{ranks} ranks, data_parallel: hybrid",
            rule="hybrid needs several groups of as many ranks each: one for each node, or two on a single one",
            remedy="start an even number of ranks, or say data_parallel=shard",
        )
    return Mesh(replicate=replicas, shard=data // replicas, context=context_parallel, deals=True)


def share_out(loads: Sequence[int], ranks: int) -> list[list[int]]:
    """Which of the loads each rank takes, heaviest first to whoever has least; indices ascending.

    share_out([5, 9, 4, 4], 2) == [[1, 3], [0, 2]]
    """
    taken: list[list[int]] = [[] for _ in range(ranks)]
    weight = [0] * ranks
    for index in sorted(range(len(loads)), key=lambda i: (-loads[i], i)):
        least = min(range(ranks), key=lambda rank: (weight[rank], rank))
        taken[least].append(index)
        weight[least] += loads[index]
    return [sorted(mine) for mine in taken]
