"""The packs of an update shared out over the ranks: each rank lays out all of them, and computes its own.

Packs of 900, 500, 400 and 400 tokens, two ranks:      rank 0: packs 0, 3      rank 1: packs 1, 2

Which packs there are does not depend on the ranks, so neither does what is learnt. Where weights are sharded all ranks
gather them for every pack together: whoever has fewer packs computes its last ones again with weight zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from burnish.data.pack import Pack
from burnish.parallel.mesh import share_out
from burnish.parallel.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Share:
    """One pack that this rank computes: its number among all, and whether it counts."""

    number: int
    pack: Pack
    counts: bool = True


def shares_of(packs: Sequence[Pack], ranks: Ranks) -> list[Share]:
    """This rank's packs; with sharded weights as many as any rank has."""
    if ranks.size == 1:
        return [Share(number, pack) for number, pack in enumerate(packs)]
    dealt = share_out([len(pack) for pack in packs], ranks.mesh.data)
    mine = [Share(number, packs[number]) for number in dealt[ranks.share]]
    if not ranks.mesh.is_sharded:
        return mine
    smallest = min(range(len(packs)), key=lambda number: len(packs[number]))
    idle = Share(smallest, weightless(packs[smallest]), counts=False)
    return mine + [idle] * (max(map(len, dealt)) - len(mine))


def num_turns(packs: Sequence[Pack], ranks: Ranks) -> int:
    """How many packs whoever has most of them computes."""
    return max(map(len, share_out([len(pack) for pack in packs], ranks.mesh.data)), default=0)


def weightless(pack: Pack) -> Pack:
    """The same pack, of which nothing counts: its loss and gradient are zero."""
    return replace(pack, weights=pack.weights * 0)


def stream(seed: int, step: int, number: int) -> int:
    """The seed of dropout in one pack of one update: the same on whichever rank the pack is computed."""
    return (seed * 1_000_003 + step + number * 0x9E37_79B9_7F4A_7C15) % 2**63
