"""How the thesis is scored."""

from __future__ import annotations

from pathlib import Path

from burnish.experiments.thesis import begins_with, write_demonstrations


def test_a_continuation_says_the_value_first_and_not_a_longer_word() -> None:
    assert begins_with(" Paris. The", "Paris")
    assert begins_with("the euro", "the euro")
    assert not begins_with(" Parisian", "Paris")
    assert not begins_with(" in Paris", "Paris")
    assert not begins_with("11", "1")


def test_demonstrations_are_at_most_a_thousand_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert write_demonstrations(first) == write_demonstrations(second) <= 1000
    assert first.read_bytes() == second.read_bytes()
