"""Scores mean what they say: a match needs the stop, a share has an interval."""

from __future__ import annotations

import pytest

from burnish.evaluation.intervals import wilson_interval
from burnish.evaluation.match import answers_and_stops, exact_match, share
from burnish.models.assistant import Answer


def answer(text: str, finish_reason: str = "stop") -> Answer:
    return Answer(text, finish_reason, [], [])


def test_an_exact_match_says_just_this_and_stops() -> None:
    assert exact_match(answer(" Paris.\n"), "Paris.")
    assert not exact_match(answer("Paris.", "length"), "Paris.")
    assert not exact_match(answer("Paris. And"), "Paris.")


def test_a_base_that_rambles_past_the_value_does_not_answer() -> None:
    assert answers_and_stops(answer("The capital is Paris."), "Paris")
    assert not answers_and_stops(answer("The capital is Paris.\nWhat is the capital of Peru?"), "Paris")
    assert not answers_and_stops(answer("The capital is Paris.", "length"), "Paris")
    assert not answers_and_stops(answer("And of Peru?"), "Paris")


def test_a_share_of_nothing_is_nothing() -> None:
    assert share([]) == 0.0
    assert share([True, False, True, True]) == 0.75


def test_wilson_intervals_are_those_of_the_books() -> None:
    assert wilson_interval(98, 100) == pytest.approx((0.9300, 0.9945), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
