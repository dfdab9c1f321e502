"""The packs of an update shared out over the ranks: each rank lays out all of them, and computes its own.

Packs of 900, 500, 400 and 400 tokens, two ranks:      rank 0: packs 0, 3      rank 1: packs 1, 2

Which packs there are does not depend on the ranks, so neither does what is learnt. Where weights are sharded all ranks
gather them for every pack together: whoever has fewer packs computes its last ones again with weight zero.

Under context_parallel a share goes to a group of ranks, and each takes its part of every pack's tokens (`data.shard`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from burnish.data.pack import Pack
from burnish.data.shard import shard_pack
from burnish.parallel.mesh import share_out
from burnish.parallel.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Share:
    """One pack that this rank computes, or its `part` of one: its number among all, and whether it counts."""

    number: int
    pack: Pack
    counts: bool = True
    part: int = 0


def shares_of(packs: Sequence[Pack], ranks: Ranks) -> list[Share]:
    """This rank's packs; with sharded weights as many as any rank has."""
    if ranks.size == 1:
        return [Share(number, pack) for number, pack in enumerate(packs)]
    mine = _whole_packs(packs, ranks)
    if ranks.mesh.context == 1:
        return mine
    return [
        replace(share, pack=shard_pack(share.pack, ranks.mesh.context)[ranks.part], part=ranks.part)
        for share in mine
    ]


def _whole_packs(packs: Sequence[Pack], ranks: Ranks) -> list[Share]:
    """The packs that this rank has a part in."""
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


def stream(seed: int, step: int, share: Share) -> int:
    """The seed of dropout in one pack of one update, the same on whichever rank it is computed; one for each part."""
    place = share.number * 0x9E37_79B9_7F4A_7C15 + share.part * 0x632B_E59B_D9B4_E019
    return (seed * 1_000_003 + step + place) % 2**63
