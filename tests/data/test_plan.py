"""The plan is a pure function: every row once an epoch, a new order each epoch, the same from any step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from burnish.data.mixture import permutation
from burnish.data.plan import PackingPlan, Plan, due


def plan(rows: int = 10, batch: int = 4, epochs: int = 2, seed: int = 0, **more: object) -> Plan:
    return Plan(num_rows=rows, batch_size=batch, num_epochs=epochs, max_steps=None, seed=seed, **more)  # type: ignore[arg-type]


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_each_epoch_has_every_row_once_in_batches_of_the_asked_size(
    rows: int, batch: int, epochs: int, seed: int
) -> None:
    made = plan(rows, batch, epochs, seed)
    assert made.num_steps == epochs * -(-rows // batch)
    for epoch in range(epochs):
        first = epoch * made.steps_per_epoch
        batches = [made.rows_of(first + i) for i in range(made.steps_per_epoch)]
        assert sorted(row for members in batches for row in members) == list(range(rows))
        assert all(len(members) == batch for members in batches[:-1])


def test_epochs_differ_from_each_other_and_from_other_seeds_and_are_the_same_when_asked_again() -> None:
    made = plan(rows=100)
    orders = [tuple(made.order(epoch)) for epoch in range(3)] + [tuple(plan(rows=100, seed=1).order(0))]
    assert len(set(orders)) == 4
    assert made.order(2) == plan(rows=100).order(2)


def test_the_order_of_a_run_is_the_one_that_earlier_releases_drew() -> None:
    drawn = np.random.Generator(np.random.Philox(key=[3, 1])).permutation(1000)
    assert plan(rows=1000, seed=3).order(1) == drawn.tolist()
    assert plan(rows=6, batch=2, seed=0).order(0) == [0, 5, 1, 2, 4, 3]
    assert permutation(1000, 3, 1).dtype == np.uint32


def test_without_shuffle_the_order_is_that_of_the_files() -> None:
    made = plan(shuffle=False)
    assert [made.rows_of(step) for step in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert made.rows_of(3) == [0, 1, 2, 3]


def test_max_steps_may_end_within_an_epoch_or_go_over_it() -> None:
    for steps in (1, 7):
        made = Plan(num_rows=10, batch_size=4, num_epochs=1, max_steps=steps, seed=0)
        assert made.num_steps == steps
        assert all(made.rows_of(step) for step in range(steps))


def test_what_is_due_every_so_often_is_also_due_at_the_end() -> None:
    assert [step for step in range(1, 8) if due(step, 3, 7)] == [3, 6, 7]
    assert [step for step in range(1, 8) if due(step, None, 7)] == [7]


@given(st.integers(1, 120), st.integers(1, 40), st.integers(8, 64), st.booleans(), st.integers(0, 2**31))
def test_packs_of_a_step_hold_exactly_the_rows_of_that_step_whole(
    rows: int, batch: int, room: int, even: bool, seed: int
) -> None:
    lengths = np.random.default_rng(seed).integers(1, 70, rows).astype(np.uint32)
    packing = PackingPlan(plan(rows, batch, seed=seed), lengths, max_tokens=room, even=even)
    sizes = list(packing.sizes(epoch=1))
    assert len(sizes) == packing.plan.steps_per_epoch
    for number, step in enumerate(range(packing.plan.steps_per_epoch, packing.plan.num_steps)):
        packs = packing.packs_of(step)
        assert sorted(row for pack in packs for row in pack) == sorted(packing.plan.rows_of(step))
        assert sizes[number] == [int(lengths[pack].sum()) for pack in packs]
        assert all(int(lengths[pack].sum()) <= room or len(pack) == 1 for pack in packs)
        assert packs == packing.packs_of(step)
