"""Scores mean what they say: a match needs the stop, a number is a number, a choice is named once."""

from __future__ import annotations

import pytest

from burnish.errors import DataError
from burnish.evaluation.intervals import wilson_interval
from burnish.evaluation.match import (
    answers_and_stops,
    chosen,
    contains,
    exact_match,
    final_number,
    numeric_match,
    read_json,
    regex_match,
    same_json,
    share,
)
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


def test_words_are_contained_whole_and_in_any_case() -> None:
    assert contains("It is  PARIS, of course", "paris,")
    assert contains("new\nyork city", "New York")
    assert not contains("A party", "art")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("6 x 7 = 42.", "42"),
        ("#### 1,234", "1234"),
        ("So 3 apples\n#### 72\nand 5 more", "72"),
        ("It costs $1,000.50!", "1000.5"),
        ("minus: -3", "-3"),
        ("in 2020 they had .5", "0.5"),
        ("none", None),
        ("1e999999999", None),
    ],
)
def test_the_final_number_is_found_as_gsm8k_writes_it(text: str, number: str | None) -> None:
    found = final_number(text)
    assert (found is None and number is None) or numeric_match(text, number)


def test_a_number_that_is_a_little_off_is_wrong() -> None:
    assert numeric_match("1,000", "1000.0") and not numeric_match("41.9", 42) and not numeric_match("", "42")


@pytest.mark.parametrize(
    ("text", "choice"),
    [("B", 1), ("(b) loud", 1), ("B. loud", 1), ("The answer is (B).", 1), ("blue", 0), ("It is blue.", 0),
     ("blue or loud", None), ("A blue one", 0), ("New York City", 3), ("none of them", None)],
)  # fmt: skip
def test_a_choice_is_named_by_letter_or_by_text_and_only_once(text: str, choice: int | None) -> None:
    assert chosen(text, ["blue", "loud", "New York", "New York City"]) == choice


def test_json_is_read_bare_or_in_a_fence_and_compared_by_value() -> None:
    assert read_json('```json\n{"a": 1}\n```') == (True, {"a": 1})
    assert read_json('{"a": 1, "a": 2}')[0] is False and read_json("so: {}")[0] is False
    assert same_json({"a": [1, 2.0], "b": None}, {"b": None, "a": [1.0, 2]})
    assert not same_json({"a": True}, {"a": 1}) and not same_json([1, 2], [2, 1])


def test_a_pattern_that_is_none_is_an_error_with_its_place() -> None:
    assert regex_match("abc", "b.") and not regex_match("abc", "^b")
    with pytest.raises(DataError, match="x:3"):
        regex_match("abc", "(", "x:3")
