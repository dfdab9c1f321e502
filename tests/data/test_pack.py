"""Packs hold every document whole and once, and the shift by one happens there and nowhere else."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.data.fill import deal, fill
from burnish.data.pack import Pack, Segment, build_pack, pack_all, total_weight
from burnish.data.trie import find_prefixes
from burnish.types import Example
from tests.data.trees import check_pack, distinct_prefixes, families

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


def example(row: int, ids: list[int], graded: list[float]) -> Example:
    return Example(row=row, source=row % 2, turns=(1,), input_ids=ids, weights=graded)


def test_the_worked_example_of_the_module() -> None:
    pack = build_pack([example(0, [10, 11, 12, 13], [0, 0, 1, 1]), example(1, [20, 21, 22], [0, 0.5, 0])])
    assert pack.input_ids.tolist() == [10, 11, 12, 13, 20, 21, 22]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert pack.bounds == ((0, 4), (4, 7))
    assert pack.reach.tolist() == [4, 4, 4, 4, 7, 7, 7]
    assert pack.rows_kept.tolist() == [1, 2, 4]
    assert pack.row_of.tolist() == [0, 1, 2]
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


def test_the_worked_example_of_a_shared_prefix() -> None:
    examples = [example(0, [1, 2, 3, 4], [0, 0, 1, 1]), example(1, [1, 2, 5], [0, 0, 0.5])]
    pack = build_pack(examples, share_prefixes=True, min_shared=2)
    assert pack.segments == (Segment(0, 2, -1), Segment(2, 4, 0), Segment(4, 5, 0))
    assert pack.input_ids.tolist() == [1, 2, 3, 4, 5]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 2]
    assert pack.reach.tolist() == [5, 5, 4, 4, 5]
    assert pack.rows_kept.tolist() == [1, 2]
    assert pack.row_of.tolist() == [0, 1, 0]
    assert pack.targets.tolist() == [3, 4, 5]
    assert (pack.saved_tokens, pack.is_tree) == (2, True)
    with pytest.raises(ValueError, match="stands alone"):
        _ = pack.bounds


def test_what_a_pack_is_filled_up_with_is_a_document_of_zeros_that_sees_itself_alone() -> None:
    pack = build_pack([example(1, [5, 6, 7], [0, 1, 1]), example(2, [8, 9], [0, 1])], round_to=4)
    assert (len(pack), pack.padding, pack.tokens, pack.saved_tokens) == (8, 3, 5, 0)
    assert pack.input_ids.tolist() == [5, 6, 7, 8, 9, 0, 0, 0]
    assert pack.position_ids.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert pack.reach.tolist() == [3, 3, 3, 5, 5, 8, 8, 8]
    assert pack.segments[-1] == Segment(5, 8, -1) and pack.bounds == ((0, 3), (3, 5), (5, 8))
    assert pack.rows_kept.tolist() == [0, 1, 3] and (pack.rows, pack.leaves) == ((1, 2), (0, 1))
    assert [pack.tokens_of(one).tolist() for one in (0, 1)] == [[0, 1, 2], [3, 4]]


def test_what_only_one_example_of_a_pack_uses_is_one_segment_wherever_others_would_have_parted() -> None:
    alike = [example(row, [7] * 40 + [row] * 3, [0.0] * 40 + [1.0] * 3) for row in range(3)]
    packs = pack_all(alike, max_tokens=100, max_rows=1, share_prefixes=True)
    assert [pack.segments for pack in packs] == [(Segment(0, 43, -1),)] * 3


def test_without_being_asked_nothing_is_shared_filled_up_or_evened_out() -> None:
    alike = [example(row, [7] * 40 + [row], [0.0] * 40 + [1.0]) for row in range(3)]
    pack = build_pack(alike)
    assert (pack.is_tree, pack.padding, len(pack), pack.saved_tokens) == (False, 0, 123, 0)
    packs = pack_all(alike, max_tokens=100)
    assert sorted(map(len, packs)) == [41, 82] and not any(pack.is_tree or pack.padding for pack in packs)
    assert [len(one) for one in pack_all(alike, max_tokens=100, even=True)] != [41, 82]
    made = {field.name: getattr(pack, field.name) for field in fields(Pack) if field.name != "padding"}
    assert Pack(**made).padding == 0


@given(families(), st.integers(1, 5), st.sampled_from([1, 8]))
def test_a_tree_holds_every_example_exactly_and_lays_each_prefix_once(
    examples: list[Example], minimum: int, multiple: int
) -> None:
    pack = build_pack(examples, share_prefixes=True, min_shared=minimum, round_to=multiple)
    check_pack(pack, examples)
    assert len(pack) % multiple == 0
    if minimum == 1:
        assert len(pack) - pack.padding == distinct_prefixes(examples)
    for segment in pack.segments:
        below = [s for s in pack.segments if s.parent >= 0 and pack.segments[s.parent] == segment]
        assert segment.end > segment.start
        assert not below or segment.end - segment.start >= minimum


@given(families(), st.sampled_from([1, 8]))
def test_a_plain_pack_holds_every_example_exactly(examples: list[Example], multiple: int) -> None:
    pack = build_pack(examples, round_to=multiple)
    check_pack(pack, examples)
    assert not pack.is_tree
    assert pack.saved_tokens == 0


@given(
    families(30),
    st.integers(4, 40),
    st.one_of(st.none(), st.integers(1, 4)),
    st.integers(1, 4),
    st.booleans(),
)
def test_trees_dealt_to_micro_batches_keep_every_example_once_and_the_bound_on_laid_tokens(
    examples: list[Example], room: int, rows: int | None, minimum: int, even: bool
) -> None:
    numbered = [Example(index, e.source, e.turns, e.input_ids, e.weights) for index, e in enumerate(examples)]
    deal_to = partial(
        pack_all, max_tokens=room, max_rows=rows, share_prefixes=True, min_shared=minimum, even=even
    )
    packs = deal_to(numbered)
    assert sorted(row for pack in packs for row in pack.rows) == list(range(len(examples)))
    for pack in packs:
        check_pack(pack, [numbered[row] for row in pack.rows])
        assert len(pack) <= room or len(pack.rows) == 1
        assert rows is None or len(pack.rows) <= rows
    assert total_weight(packs) == pytest.approx(sum(sum(e.weights) for e in examples))
    assert [pack.rows for pack in deal_to(numbered)] == [pack.rows for pack in packs]


def test_rows_that_begin_alike_go_together_and_a_long_prefix_is_laid_once_a_pack() -> None:
    prompts = [[family] * 50 for family in range(4)]
    examples = [
        example(row, [*prompts[row % 4], 10 + row, 9, 9], [0.0] * 50 + [1.0, 1.0, 1.0]) for row in range(40)
    ]
    packs = pack_all(examples, max_tokens=80, share_prefixes=True)
    assert len(packs) == 4
    assert {frozenset(row % 4 for row in pack.rows) for pack in packs} == {frozenset([f]) for f in range(4)}
    assert all(len(pack) == 80 and pack.saved_tokens == 450 for pack in packs)


def test_a_beginning_too_short_to_pay_is_not_shared() -> None:
    examples = [example(row, [7] * 15 + [row] * 30, [0.0] * 45) for row in range(3)]
    assert not build_pack(examples, share_prefixes=True).is_tree
    assert build_pack(examples, share_prefixes=True, min_shared=15).saved_tokens == 30


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=30))
def test_walking_the_trie_gives_every_sequence_back(sequences: list[list[int]]) -> None:
    trie = find_prefixes([np.array(sequence) for sequence in sequences], minimum=1)
    runs: dict[int, tuple[int, ...]] = {}
    for index, sequence in enumerate(sequences):
        path = trie.path(index)
        assert trie.ends[path[-1]] == len(sequence)
        for node in path:
            run = tuple(sequence[trie.start(node) : trie.ends[node]])
            assert runs.setdefault(node, run) == run
    assert sorted(trie.order) == list(range(len(sequences)))
    assert [sequences[index] for index in trie.order] == sorted(sequences)


@given(LENGTHS, st.integers(8, 64))
def test_best_fit_opens_a_pack_only_where_none_has_room(lengths: list[int], room: int) -> None:
    packs = fill(lengths, max_tokens=room)
    used = [sum(lengths[index] for index in pack) for pack in packs]
    for number, pack in enumerate(packs):
        assert all(used[earlier] + lengths[pack[0]] > room for earlier in range(number))


def test_a_hundred_thousand_documents_are_dealt_with_hardly_any_room_left() -> None:
    lengths = np.random.default_rng(0).gamma(2.0, 90.0, 100_000).astype(int).clip(8, 1000).tolist()
    packs = fill(lengths, max_tokens=2048)
    assert sum(lengths) / (len(packs) * 2048) > 0.998


@given(LENGTHS, st.integers(8, 200), st.one_of(st.none(), st.integers(1, 5)))
def test_dealt_evenly_there_are_as_many_packs_and_none_is_larger(
    lengths: list[int], room: int, rows: int | None
) -> None:
    tight = deal(lengths, max_tokens=room, max_rows=rows)
    even = deal(lengths, max_tokens=room, max_rows=rows, even=True)
    assert sorted(index for pack in even for index in pack) == list(range(len(lengths)))
    assert len(even) <= len(tight)
    sizes, at_most = ([sum(lengths[index] for index in pack) for pack in packs] for packs in (even, tight))
    assert max(sizes) <= max(*at_most, 0)


def test_dealt_evenly_a_batch_that_needs_two_packs_has_two_alike() -> None:
    lengths = np.random.default_rng(1).gamma(2.0, 90.0, 8).astype(int).clip(8, 1000).tolist()
    examples = [example(row, [row] * length, [0.0] * length) for row, length in enumerate(lengths)]
    for share in (False, True):
        tight = sorted(map(len, pack_all(examples, max_tokens=1024, share_prefixes=share)))
        even = sorted(map(len, pack_all(examples, max_tokens=1024, share_prefixes=share, even=True)))
        assert len(even) == len(tight) == 2
        assert even[1] - even[0] < 100 < tight[1] - tight[0]
