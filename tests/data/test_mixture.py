"""A mixture's counts are the plan's to the row, whatever the sizes, weights and rules; nothing is carried along."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.data.mixture import Ask, Mixture, apportion, asked_shares, counts_of, mix, with_replay
from burnish.data.plan import Course, Plan
from burnish.recipe.choices import Exhausted, MixtureRule

SIZES = st.lists(st.sampled_from([0, 1, 2, 5, 37, 1000]), min_size=1, max_size=5).filter(any)
MIXES = st.lists(st.sampled_from([0.1, 0.5, 1.0, 3.0]), min_size=5, max_size=5)
LIMITS = st.lists(st.sampled_from([None, 1, 3, 50]), min_size=5, max_size=5)
GROUPS = st.lists(st.sampled_from([None, None, "a", "b"]), min_size=5, max_size=5)
RULES, EXHAUSTED = st.sampled_from(MixtureRule), st.sampled_from(Exhausted)


def asks(
    sizes: list[int], *, mixes: list[float], caps: list[int | None], groups: list[str | None]
) -> list[Ask]:
    given_each = zip(sizes, mixes, caps, groups, strict=False)
    return [
        Ask(number, size, size if cap is None else min(size, cap), weight, group)
        for number, (size, weight, cap, group) in enumerate(given_each)
    ]


def plan(mixture: Mixture, *, batch: int = 7, epochs: int = 2, seed: int = 3, shuffle: bool = True) -> Plan:
    rows = sum(part.rows for part in mixture.all_parts)
    return Plan(rows, batch, epochs, None, seed, shuffle, mixture)


@given(SIZES, MIXES, LIMITS, GROUPS, RULES, EXHAUSTED, st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_what_the_updates_take_of_each_source_is_the_counts_exactly_and_in_every_epoch(
    sizes: list[int],
    mixes: list[float],
    caps: list[int | None],
    groups: list[str | None],
    rule: MixtureRule,
    exhausted: Exhausted,
    shuffle: bool,
    seed: int,
) -> None:
    asked = asks(sizes, mixes=mixes, caps=caps, groups=groups)
    mixture = mix(asked, rule, exhausted, temperature=2.0, groups={"b": 2.0})
    if mixture.length > 100_000:
        return
    made = plan(mixture, shuffle=shuffle, seed=seed)
    ends = np.cumsum([part.rows for part in mixture.parts])
    for epoch in range(2):
        first = epoch * made.steps_per_epoch
        rows = [row for step in range(made.steps_per_epoch) for row in made.rows_of(first + step)]
        counts = np.bincount(np.searchsorted(ends, rows, side="right"), minlength=len(sizes))
        assert counts.tolist() == [part.count for part in mixture.parts]
        for part in mixture.parts:
            mine = [row for row in rows if part.first <= row < part.first + part.rows]
            times = Counter(mine)
            # no row is taken again before every other of its source was, epochs included
            assert not mine or max(times.values()) <= -(-part.count // part.rows) + 1
    if shuffle and mixture.spread:
        used = made.times_used()
        for part in mixture.parts:
            mine = used[part.first : part.first + part.rows]
            assert not part.rows or mine.max() - mine.min() <= 1


@given(
    SIZES,
    MIXES,
    GROUPS,
    st.sampled_from([MixtureRule.WEIGHTS, MixtureRule.TEMPERATURE, MixtureRule.PROPORTIONAL]),
)
@settings(max_examples=100, deadline=None)
def test_under_stop_and_repeat_the_shares_hold_to_within_a_row_and_the_rule_ends_the_epoch(
    sizes: list[int], mixes: list[float], groups: list[str | None], rule: MixtureRule
) -> None:
    asked = asks(sizes, mixes=mixes, caps=[None] * 5, groups=groups)
    shares = asked_shares(asked, rule, temperature=3.0)
    assert sum(shares) == 1
    assert [bool(share) for share in shares] == [bool(size) for size in sizes]
    for exhausted in (Exhausted.STOP, Exhausted.REPEAT):
        counts = counts_of(sizes, shares, exhausted)
        total = sum(counts)
        for count, share in zip(counts, shares, strict=True):
            assert abs(count - total * share) < 1
        pairs = [(count, size) for count, size in zip(counts, sizes, strict=True) if size]
        if exhausted == Exhausted.STOP:
            assert all(count <= size for count, size in pairs)
            # one more draw of the shares would want more of a source than it has
            more = [(total + max(1, int(1 / min(filter(None, shares)))) + 1) * share for share in shares]
            assert any(want > size for want, size in zip(more, sizes, strict=True) if size)
        else:
            assert all(count >= size for count, size in pairs)
    assert counts_of(sizes, shares, Exhausted.DROP) == sizes


def test_the_example_of_the_page_is_what_comes_out() -> None:
    asked = [Ask(0, 1000, 1000, 2.0), Ask(1, 200, 200), Ask(2, 50, 50)]
    counts = {
        rule: [part.count for part in mix(asked, MixtureRule.WEIGHTS, rule).parts] for rule in Exhausted
    }
    assert counts == {"stop": [100, 50, 50], "repeat": [1000, 500, 500], "drop": [1000, 200, 50]}


def test_groups_get_their_shares_first_and_their_members_deal_with_theirs() -> None:
    asked = [Ask(0, 10, 10, 1.0, "qa"), Ask(1, 10, 10, 3.0, "qa"), Ask(2, 10, 10, 1.0, "sum"), Ask(3, 10, 10)]
    shares = asked_shares(asked, MixtureRule.WEIGHTS, groups={"qa": 2.0})
    assert shares == [Fraction(1, 8), Fraction(3, 8), Fraction(1, 4), Fraction(1, 4)]


def test_temperature_goes_from_sizes_to_equal_shares() -> None:
    asked = [Ask(0, 900, 900), Ask(1, 100, 100)]
    by_temperature = [
        float(asked_shares(asked, MixtureRule.TEMPERATURE, temperature=t)[0]) for t in (1, 2, 1e9)
    ]
    assert by_temperature == pytest.approx([0.9, 0.75, 0.5], abs=1e-6)


def test_a_spread_mixture_has_its_shares_in_every_stretch_and_a_dropped_source_leaves_the_rest() -> None:
    asked = [Ask(0, 600, 600, 1.0), Ask(1, 200, 200, 1.0)]
    order = np.array(plan(mix(asked, MixtureRule.WEIGHTS, Exhausted.REPEAT)).order(0)) >= 600
    assert {int(order[k : k + 40].sum()) for k in range(0, 1200, 40)} <= set(range(18, 23))
    dropped = np.array(plan(mix(asked, MixtureRule.WEIGHTS, Exhausted.DROP)).order(0)) >= 600
    assert dropped[:390].sum() == pytest.approx(195, abs=2)
    assert dropped[402:].sum() == 0


def test_concat_without_limits_is_the_order_of_a_run_without_a_mixture() -> None:
    mixture = mix([Ask(0, 30, 30), Ask(1, 0, 0), Ask(2, 12, 12)], MixtureRule.CONCAT)
    bare = Plan(42, 7, 2, None, 3)
    assert [plan(mixture).rows_of(step) for step in range(12)] == [bare.rows_of(step) for step in range(12)]


def test_a_capped_source_shows_other_rows_each_epoch_until_all_were_shown() -> None:
    made = plan(mix([Ask(0, 100, 25), Ask(1, 8, 8)], MixtureRule.CONCAT), epochs=4)
    shown = [{row for row in made.order(epoch) if row < 100} for epoch in range(4)]
    assert [len(rows) for rows in shown] == [25] * 4
    assert set.union(*shown) == set(range(100))


@pytest.mark.parametrize("rule", MixtureRule)
def test_replay_is_its_share_of_graded_tokens_and_reaches_every_part_of_an_epoch(rule: MixtureRule) -> None:
    mixture = mix([Ask(0, 300, 300), Ask(1, 100, 100)], rule)
    graded = sum(part.count for part in mixture.parts) * 30
    mixed = with_replay(mixture, source=2, rows=50, share=0.25, graded=graded, replayed=60.0)
    assert mixed.replay is not None
    tokens = mixed.replay.count * 60
    assert tokens / (tokens + graded) == pytest.approx(0.25, abs=0.002)
    order = np.array(plan(mixed).order(1)) >= 400
    quarters = [int(part.sum()) for part in np.array_split(order, 4)]
    assert max(quarters) - min(quarters) <= 3
    assert np.ptp(plan(mixed).times_used()[400:]) <= 1


@given(st.integers(0, 500), st.lists(st.fractions(0, 1), min_size=1, max_size=6).filter(any))
def test_apportioned_parts_are_whole_and_add_up(total: int, raw: list[Fraction]) -> None:
    shares = [part / sum(raw) for part in raw]
    counts = apportion(total, shares)
    assert sum(counts) == total
    assert all(abs(count - total * share) < 1 for count, share in zip(counts, shares, strict=True))


def test_a_course_is_its_plans_end_to_end() -> None:
    first, second = Plan(10, 4, 1, None, 0), Plan(6, 3, 2, None, 0)
    course = Course((first, second))
    assert course.num_steps == 7
    assert [course.stage_of(step) for step in (0, 2, 3, 6)] == [(0, 0), (0, 2), (1, 0), (1, 3)]
    assert course.rows_of(2) == first.rows_of(2)
    assert course.rows_of(4) == [10 + row for row in second.rows_of(1)]
    assert [course.epoch_of(step) for step in (0, 3, 4, 7)] == [0.0, 1.0, 0.5, 2.0]
    assert course.times_used().tolist() == [1] * 10 + [2] * 6
