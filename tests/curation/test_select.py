"""Selected rows are good, unlike each other, of every source its share, and each knows why it is in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.curation.select import Method, percentiles, select, shares, tf_idf
from burnish.errors import DataError


def clusters(number: int, size: int) -> tuple[list[str], list[int]]:
    """Texts in groups that share all their words but one."""
    texts = [f"group{g} subject{g} matter{g} verb{g} and row{k}" for g in range(number) for k in range(size)]
    return texts, [g for g in range(number) for _ in range(size)]


@pytest.mark.parametrize("method", ["k-centre", "facility"])
def test_as_many_rows_as_groups_are_one_of_each_group(method: Method) -> None:
    texts, groups = clusters(12, 20)
    chosen = select(tf_idf(texts), 12, method=method)
    assert len({groups[one.index] for one in chosen}) == 12


def test_random_rows_would_not_be_one_of_each_group() -> None:
    _, groups = clusters(12, 20)
    picks = np.random.default_rng(0).permutation(len(groups))[:12]
    assert len({groups[k] for k in picks}) < 12


@pytest.mark.parametrize("method", ["k-centre", "facility"])
def test_within_a_group_the_best_row_is_taken_and_quality_alone_takes_the_best(method: Method) -> None:
    texts, groups = clusters(6, 10)
    quality = [float(k % 10) for k in range(60)]
    mixed = select(tf_idf(texts), 6, quality=quality, method=method, quality_weight=0.3)
    assert len({groups[one.index] for one in mixed}) == 6
    assert np.mean([one.percentile for one in mixed]) > 0.75
    alone = select(tf_idf(texts), 6, quality=quality, method=method, quality_weight=1.0)
    assert {quality[one.index] for one in alone} == {9.0}


def test_only_the_best_part_is_looked_at_and_rows_without_a_score_are_last() -> None:
    texts, _ = clusters(5, 10)
    quality = [None if k < 25 else float(k) for k in range(50)]
    chosen = select(tf_idf(texts), 5, quality=quality, keep_best=0.2, quality_weight=0.0)
    assert min(one.index for one in chosen) >= 40
    assert percentiles([None, 1.0, 1.0, 3.0]).tolist() == [0.0, 0.5, 0.5, 1.0]


def test_a_choice_says_why() -> None:
    texts, _ = clusters(3, 4)
    chosen = select(tf_idf(texts), 3, quality=[1.0] * 12, sources=["s"] * 12, method="k-centre")
    first, second = (one.why(lambda index: f"rows:{index}") for one in chosen[:2])
    assert first.startswith("choice 1 of s; score 1") and "the first" in first
    assert f"from the nearest one chosen before, rows:{chosen[0].index}" in second


def test_the_same_seed_chooses_the_same_rows_and_order() -> None:
    texts, _ = clusters(40, 10)
    points = tf_idf(texts)
    first = [one.index for one in select(points, 50, method="facility", seed=3)]
    assert first == [one.index for one in select(points, 50, method="facility", seed=3)]
    assert len(set(first)) == 50
    assert first != [one.index for one in select(points, 50, method="facility", seed=4)]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.booleans(), st.data())
def test_shares_come_to_the_number_and_no_source_gives_more_than_it_has(
    sizes: list[int], equal: bool, data: st.DataObject
) -> None:
    names = [f"s{k}" for k, size in enumerate(sizes) for _ in range(size)]
    number = data.draw(st.integers(1, len(names)))
    given_ = shares(names, number, equal=equal)
    assert sum(given_.values()) == number
    for k, size in enumerate(sizes):
        assert given_[f"s{k}"] <= size
        if not equal:
            assert abs(given_[f"s{k}"] - number * size / len(names)) < 1
    if equal:
        open_ = [given_[f"s{k}"] for k, size in enumerate(sizes) if given_[f"s{k}"] < size]
        assert not open_ or max(open_) - min(open_) <= 1


def test_more_rows_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match="5 rows wanted of 3"):
        shares(["a"] * 3, 5, equal=False)
