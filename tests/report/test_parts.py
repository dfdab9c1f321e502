"""What the page is made of: scales, figures as words, intervals of differences, markup."""

from __future__ import annotations

import random

import pytest

from burnish.report.axis import Axis, mark, wants_log
from burnish.report.markup import Html, safe, table, tag
from burnish.report.scores import bounds, difference, score_of, verdict
from burnish.report.sections.curves import MAX_POINTS, smooth
from burnish.report.words import count, decimal, duration, large, listed, memory, percent, points, signed
from tests.report.runs import metric, share


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("tight", [False, True])
def test_an_axis_holds_its_values_and_marks_a_few(log: bool, tight: bool) -> None:
    chance = random.Random(0)
    for _ in range(500):
        size = 10 ** chance.uniform(-9, 9)
        values = [
            chance.uniform(0 if log else -1, 1) * size + (1e-12 if log else 0)
            for _ in range(chance.randint(1, 5))
        ]
        axis = Axis.over(values, log=log, tight=tight)
        near = 1e-3 * size
        assert axis.low <= min(values) + near and axis.high >= max(values) - near
        assert len(axis.ticks) <= 8
        assert all(0 <= axis.at(value) <= 1 for value in (*values, *axis.ticks))
        assert axis.at(axis.low) == 0 and axis.at(axis.high) == pytest.approx(1)


def test_marks_are_round() -> None:
    assert Axis.over([0.03, 0.97]).ticks == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert Axis.over([0.003, 2.1], log=True).ticks == (0.01, 0.1, 1.0)
    assert [mark(value) for value in (0.05, 1000, 2e6, -0.5, 1e-7)] == [
        "0.05",
        "1,000",
        "2 million",
        "−0.5",
        "1e-7",
    ]
    assert wants_log([0.01, 2]) and not wants_log([0.5, 2]) and not wants_log([0, 2]) and not wants_log([])


def test_figures_read_as_people_write_them() -> None:
    assert [duration(s) for s in (0.102, 12.46, 95, 4000, 100_000)] == [
        "102 ms",
        "12.5 s",
        "1 min 35 s",
        "1 h 6 min",
        "1 d 3 h",
    ]
    assert [memory(b) for b in (692e6, 8.5 * 2**30)] == ["660 MiB", "8.50 GiB"]
    assert [decimal(v) for v in (0, 0.01362, 2.0911, 1520.4, 0.0000321, None)] == [
        "0",
        "0.0136",
        "2.09",
        "1,520",
        "3.21e-05",
        "–",
    ]
    assert (percent(0.9933), points(-0.124), signed(0.0295), signed(-2.0)) == (
        "99.3%",
        "−12.4",
        "+0.0295",
        "−2",
    )
    assert (count(1, "row"), count(1200, "row"), count(2, "batch", "batches")) == (
        "1 row",
        "1,200 rows",
        "2 batches",
    )
    assert (large(3_803_904), listed(["a", "b", "c"])) == ("3.8 million", "a, b and c")


def test_a_difference_has_an_interval_and_a_verdict() -> None:
    base, tuned = (score_of("exact_match", share(value), "m", 0) for value in (0.30, 0.55))
    assert base is not None and tuned is not None
    low, high = bounds(base, tuned)
    assert low < 0.25 < high and verdict(base, tuned) == "better" and verdict(tuned, base) == "worse"
    assert verdict(base, base) == "not told apart"
    assert difference(base, tuned).startswith("+25.0 points (")
    before, after = (
        score_of("loss", metric(value, 0.02, higher_is_better=False), "m", 0) for value in (2.0, 1.5)
    )
    assert before is not None and after is not None and verdict(before, after) == "better"


def test_an_interval_of_equal_arms_is_that_of_independent_means() -> None:
    one, other = (score_of("x", {"value": v, "low": v - 0.03, "high": v + 0.03}, "m", 0) for v in (0.4, 0.5))
    assert one is not None and other is not None
    low, high = bounds(one, other)
    assert (low, high) == (pytest.approx(0.1 - 0.03 * 2**0.5), pytest.approx(0.1 + 0.03 * 2**0.5))


def test_a_smoothed_line_leaves_out_spikes_and_keeps_its_ends() -> None:
    points = [(float(step), 100.0 if step % 997 == 0 else 1 / step) for step in range(1, 20_001)]
    line = smooth(points)
    assert len(line) <= MAX_POINTS + 1
    assert (line[0][0], line[-1][0]) == (1.0, 20_000.0)
    assert max(y for _, y in line) < 1


def test_what_is_not_markup_is_escaped_once() -> None:
    assert tag("td", "<b>") == "<td>&lt;b&gt;</td>"
    assert tag("td", Html("<b></b>")) == "<td><b></b></td>"
    assert tag("i", title='"><script>') == '<i title="&quot;&gt;&lt;script&gt;"></i>'
    assert safe("\u202e") == "⟨202E⟩"
    assert '<th scope="row">&amp;</th>' in table(("a",), [("&",)])
