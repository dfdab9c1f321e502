"""Advice on how many prompts are needed is kept by simulated studies of that size."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.errors import UsageError
from burnish.evaluation.intervals import mean_interval
from burnish.evaluation.power import prompts_needed, smallest_reliable, smallest_visible, study


def found_share(prompts: int, difference: float, *, ties: float = 0.0, studies: int = 2000) -> float:
    """How many of simulated studies have an interval that leaves one half out."""
    random = np.random.default_rng(2)
    decided = random.random((studies, prompts)) >= ties
    won = random.random((studies, prompts)) < 0.5 + difference / (1 - ties)
    outcomes = np.where(decided, won, 0.5)
    return float(np.mean([low > 0.5 or high < 0.5 for low, high in map(mean_interval, outcomes)]))


def test_the_advice_in_words() -> None:
    said = study(80).in_words()
    assert "With 80 prompts you cannot see a difference under 11 points" in said
    assert "For 5 points you need about 400 prompts" in said


@pytest.mark.parametrize(("difference", "ties"), [(0.1, 0.0), (0.07, 0.0), (0.2, 0.0), (0.1, 0.3)])
def test_with_the_prompts_advised_a_difference_is_found_four_times_in_five(
    difference: float, ties: float
) -> None:
    needed = prompts_needed(difference, ties=ties)
    assert 0.77 <= found_share(needed, difference, ties=ties) <= 0.84
    assert found_share(needed // 2, difference, ties=ties) < 0.6


def test_what_cannot_be_seen_is_not_seen() -> None:
    just_below = np.zeros(80)
    just_below[: int(80 * (0.5 + smallest_visible(80)))] = 1
    assert mean_interval(just_below)[0] < 0.5
    just_below[: int(80 * (0.5 + smallest_visible(80))) + 1] = 1
    assert mean_interval(just_below)[0] > 0.5


def test_what_is_found_reliably_and_what_is_needed_for_it_are_each_others_inverse() -> None:
    for prompts in (20, 80, 805):
        assert prompts_needed(smallest_reliable(prompts)) <= prompts
        assert prompts_needed(smallest_reliable(prompts) * 0.98) > prompts


def test_equal_models_are_told_apart_one_time_in_twenty() -> None:
    assert 0.03 <= found_share(400, 0.0) <= 0.07


def test_questions_without_an_answer_are_refused() -> None:
    for wrong in ({"prompts": 0}, {"prompts": 10, "difference": 0.6}, {"prompts": 10, "ties": 1.0}):
        with pytest.raises(UsageError):
            study(**wrong)  # type: ignore[arg-type]
