"""Packs hold every document whole and once, and the shift by one happens there and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.data.pack import build_pack, fill, pack_all, total_weight
from burnish.types import Example

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


def example(row: int, ids: list[int], graded: list[float]) -> Example:
    return Example(row=row, source=row % 2, turns=(1,), input_ids=ids, weights=graded)


def test_the_worked_example_of_the_module() -> None:
    pack = build_pack([example(0, [10, 11, 12, 13], [0, 0, 1, 1]), example(1, [20, 21, 22], [0, 0.5, 0])])
    assert pack.input_ids.tolist() == [10, 11, 12, 13, 20, 21, 22]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert pack.bounds == ((0, 4), (4, 7))
    assert pack.predicts.tolist() == [1, 2, 4]
    assert pack.targets.tolist() == [12, 13, 21]
    assert pack.weights.tolist() == [1, 1, 0.5]
    assert pack.sources.tolist() == [0, 0, 1]
    assert pack.rows == (0, 1)
    assert pack.weight == 2.5


def test_a_graded_first_token_is_refused_for_nothing_comes_before_it() -> None:
    with pytest.raises(ValueError, match="row 3"):
        build_pack([example(2, [1, 2], [0, 1]), example(3, [1, 2], [1, 1])])


@given(LENGTHS, st.integers(8, 64), st.one_of(st.none(), st.integers(1, 5)))
def test_every_document_is_dealt_once_and_no_pack_is_over_full(
    lengths: list[int], room: int, rows: int | None
) -> None:
    packs = fill(lengths, max_tokens=room, max_rows=rows)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    for pack in packs:
        assert sum(lengths[index] for index in pack) <= room or len(pack) == 1
        assert rows is None or len(pack) <= rows


@given(LENGTHS, st.integers(8, 64), st.integers(0, 2**31))
def test_packing_changes_neither_targets_nor_contexts_nor_the_denominator(
    lengths: list[int], room: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    documents = [
        example(
            row, draw.integers(0, 99, n).tolist(), [0.0, *draw.choice([0.0, 1.0, 0.25], n - 1).tolist()][:n]
        )
        for row, n in enumerate(lengths)
    ]
    expected = sorted(
        (tuple(e.input_ids[:k]), e.input_ids[k], e.weights[k])
        for e in documents
        for k in range(len(e))
        if e.weights[k]
    )
    packs = pack_all(documents, max_tokens=room)
    found = []
    for pack in packs:
        for at, target, weight in zip(pack.predicts, pack.targets, pack.weights, strict=True):
            start = next(i for i, j in pack.bounds if i <= at < j)
            assert pack.position_ids[at] == at - start
            found.append((tuple(pack.input_ids[start : at + 1].tolist()), int(target), float(weight)))
    assert sorted(found) == expected
    assert total_weight(packs) == pytest.approx(sum(sum(e.weights) for e in documents))


def test_best_fit_leaves_little_room_unused() -> None:
    lengths = np.random.default_rng(0).gamma(2.0, 90.0, 2000).astype(int).clip(8, 1000).tolist()
    packs = fill(lengths, max_tokens=2048)
    assert sum(lengths) / (len(packs) * 2048) > 0.97
