"""A pack dealt to ranks loses nothing, moves nothing, and is fair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.data.pack import Pack, build_pack
from burnish.data.shard import attention_cost, beginning, shard_pack
from burnish.types import Example
from tests.models.trees import examples, share


@st.composite
def packs(draw: st.DrawFn) -> Pack:
    lengths = draw(st.lists(st.integers(2, 60), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    prefix = rng.integers(3, 9, draw(st.integers(0, 20))).tolist()
    rows = []
    for row, length in enumerate(lengths):
        ids = [*prefix, *rng.integers(3, 9, length).tolist()]
        weights = rng.choice([0.0, 1.0, 0.5], len(ids)).tolist()
        rows.append(Example(row, row % 3, (1,), ids, [0.0, *weights[1:]]))
    return build_pack(
        rows, share_prefixes=draw(st.booleans()), min_shared=1, round_to=draw(st.sampled_from([1, 16]))
    )


@settings(deadline=None, max_examples=60)
@given(packs(), st.integers(1, 8))
def test_every_token_and_every_target_is_on_one_rank_with_its_position_and_its_predictor(
    pack: Pack, ranks: int
) -> None:
    if len(pack) < ranks:
        with pytest.raises(ValueError, match="cannot be dealt"):
            shard_pack(pack, ranks)
        return
    shards = shard_pack(pack, ranks)
    assert sorted(np.concatenate([shard.held for shard in shards]).tolist()) == list(range(len(pack)))
    assert sorted(np.concatenate([shard.graded for shard in shards]).tolist()) == list(
        range(len(pack.targets))
    )
    assert sum(shard.padding for shard in shards) == pack.padding
    for shard in shards:
        assert len(shard) and (np.diff(shard.held) > 0).all()
        for name in ("input_ids", "position_ids", "reach"):
            assert getattr(shard, name).tolist() == getattr(pack, name)[shard.held].tolist()
        assert shard.held[shard.predicts].tolist() == pack.predicts[shard.graded].tolist()
        for name in ("targets", "weights", "sources"):
            assert getattr(shard, name).tolist() == getattr(pack, name)[shard.graded].tolist()
    assert sum(shard.weight for shard in shards) == pytest.approx(pack.weight)


@settings(deadline=None, max_examples=40)
@given(packs(), st.integers(1, 6))
def test_ranks_hold_equally_many_tokens_but_for_the_rounding_of_pieces(pack: Pack, ranks: int) -> None:
    if len(pack) < ranks:
        return
    sizes = [len(shard) for shard in shard_pack(pack, ranks)]
    assert max(sizes) - min(sizes) <= max(16, -(-len(pack) // (2 * ranks)))


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_one_long_document_is_dealt_to_and_fro_and_its_work_is_even(ranks: int) -> None:
    pack = build_pack([Example(0, 0, (1,), list(range(3, 4099)), [0.0] + [1.0] * 4095)])
    shards = shard_pack(pack, ranks)
    work = [int(attention_cost(shard).sum()) for shard in shards]
    assert max(work) <= 1.001 * min(work)
    assert {len(shard) for shard in shards} == {4096 // ranks}
    halves = [int(part.sum()) for part in np.array_split(attention_cost(pack), ranks)]
    assert max(halves) > 2.9 * min(halves)  # what equal slices would have come to


def test_documents_of_unlike_lengths_are_dealt_evenly_too() -> None:
    rng = np.random.default_rng(1)
    lengths = [3000, 40, 700, 90, 1500, 10, 300, 1200]
    rows = [
        Example(i, 0, (1,), rng.integers(3, 60, n).tolist(), [0.0] + [1.0] * (n - 1))
        for i, n in enumerate(lengths)
    ]
    work = [int(attention_cost(shard).sum()) for shard in shard_pack(build_pack(rows), 4)]
    assert max(work) <= 1.05 * sum(work) / 4


def test_the_beginning_of_a_pack_is_a_pack() -> None:
    tree = share(examples())
    few = beginning(tree, 12)
    assert len(few) == 12 and few.reach.max() == 12
    assert [segment.end for segment in few.segments][-1] == 12
    assert len(few.rows_kept) == 8 and len(beginning(tree, 10**6)) == len(tree)
