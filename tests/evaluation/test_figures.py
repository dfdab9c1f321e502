"""Figures are sums over sums with an interval over rows, and what contamination says is where it was seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from burnish.evaluation.contamination import contamination
from burnish.evaluation.figures import differences, summarise
from burnish.evaluation.intervals import ratio_interval, wilson_interval
from burnish.types import Completion, Conversation


def test_shares_get_wilson_and_sums_a_bootstrap() -> None:
    rows = [{"exact_match": (float(k < 3), 1.0), "loss": (2.0 + k, 2.0)} for k in range(10)]
    found = summarise(rows)
    assert found["exact_match"].value == 0.3 and found["exact_match"].interval == "wilson"
    assert (found["exact_match"].low, found["exact_match"].high) == pytest.approx(wilson_interval(3, 10))
    assert found["loss"].value == pytest.approx(3.25) and found["loss"].interval == "bootstrap"
    assert found["loss"].low < 3.25 < found["loss"].high and not found["loss"].higher_is_better  # type: ignore[operator]
    assert found["perplexity"].value == pytest.approx(math.exp(3.25))


def test_a_metric_counts_the_rows_that_have_it_and_one_row_has_no_interval() -> None:
    found = summarise([{"loss": (1.0, 2.0)}, {"json_valid": (1.0, 1.0)}])
    assert found["loss"].n == 1 and found["loss"].interval == "none" and found["loss"].low is None
    assert found["json_valid"].n == 1


def test_a_ratio_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random, hits = np.random.default_rng(7), 0
    for seed in range(100):
        sizes = random.integers(1, 40, size=50).astype(np.float64)
        sums = random.normal(2.0, 0.5, size=50) * sizes
        low, high = ratio_interval(sums, sizes, seed=seed)
        hits += low <= 2.0 <= high
    assert 88 <= hits <= 100  # 95 of 100, give or take 3 standard errors


def test_a_difference_is_paired_row_by_row() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(3, 1, size=60)  # rows differ far more than models do
    before = [{"loss": (float(x), 1.0)} for x in hard]
    after = [{"loss": (float(x) - 0.1, 1.0)} for x in hard]
    found = differences(after, before)["loss"]
    assert found.value == pytest.approx(-0.1) and found.clear
    same = differences(before, before)["loss"]
    assert same.value == 0 and not same.clear


LONG = "the boiling point of water at the top of mount everest is lower than at the sea"


def test_contamination_finds_long_runs_and_short_texts_and_no_system_message() -> None:
    evaluation = [
        ("t:1", [f"Is it true that {LONG}?"]),
        ("t:2", ["What is the sea?"]),
        ("t:3", ["Yes."]),
        ("t:4", ["a b"]),
    ]
    training = [
        Completion("Say why.", f"Because {LONG.upper()}, of course."),
        Conversation(
            [{"role": "user", "content": "what is THE sea"}, {"role": "assistant", "content": "yes"}]
        ),
    ]
    found = contamination(evaluation, training)
    assert (found.rows, found.of, found.first) == (2, 4, ("t:1", "t:2"))
    hidden = Conversation([{"role": "system", "content": LONG}, {"role": "assistant", "content": "ok"}])
    assert contamination([("t:1", [LONG])], [hidden]).rows == 0
