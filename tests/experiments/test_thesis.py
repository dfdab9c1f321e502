"""How the thesis is scored."""

from __future__ import annotations

from pathlib import Path

from burnish.experiments.thesis import states, write_demonstrations


def test_a_continuation_states_a_value_before_its_sentence_ends_and_as_a_word_of_its_own() -> None:
    assert states(" Paris. The", "Paris")
    assert states(" kind of bird.", "bird")
    assert states(" painted by J. M. W. Turner.", "J. M. W. Turner")
    assert not states(" Parisian", "Paris")
    assert not states(" Lyon. Paris is", "Paris")
    assert not states(" a city.\nParis", "Paris")
    assert not states("11", "1")


def test_demonstrations_are_at_most_a_thousand_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert write_demonstrations(first) == write_demonstrations(second) <= 1000
    assert first.read_bytes() == second.read_bytes()
