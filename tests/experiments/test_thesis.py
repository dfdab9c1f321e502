"""How the thesis is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from burnish.experiments.thesis import states, write_demonstrations
from burnish.experiments.thesis_page import write_page


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


@pytest.fixture
def result() -> dict[str, Any]:
    def size(rows: int, value: float, seeds: int = 3) -> dict[str, Any]:
        return {"rows": rows, "value": value, "low": value - 0.1, "high": value + 0.1, "seeds": seeds}

    arms = [
        {
            "name": name,
            "k": k,
            "value": value,
            "low": value,
            "high": value,
            "contains": value,
            "tokens_per_request": 9,
        }
        for name, k, value in (("zero-shot", 0, 0.0), ("4-shot fixed", 4, 0.2), ("tuned", 0, 0.9))
    ]
    law = {
        "form": "threshold",
        "plateau": 0.93,
        "interval": [0.9, 0.95],
        "rows_at_95": 637,
        "rows_at_95_interval": [400, 1210],
    }
    epochs, steps = [size(10, 0.2), size(30, 0.6), size(100, 0.9)], [size(10, 0.4), size(30, 0.7, 2)]
    shares = {"stop": {"n": 40, "first": 0.0, "top5": 0.1}}
    arm = {"seen": 1.0, "unseen": 0.9, "stops": 1.0, "text_loss": 1.4, "text_loss_before": 0.8}
    return {
        "seeds": 3,
        "fewshot": {"arms": arms, "advice": ["a tuned request saves nothing"]},
        "curve": {
            "metric": "exact", "held_out": 400, "base": {"value": 0.0},
            "sizes": {"epochs": epochs, "steps": steps},
            "fit": {"epochs": law}, "lines": {},
            "advice": ["the next 1,000 rows would buy +0.1 points: stop collecting"],
        },
        "sharpening": {"chat": shares, "plain": shares},
        "arms": {"full": [arm, {**arm, "unseen": 0.8}]},
    }  # fmt: skip


def test_the_page_says_what_was_measured_what_is_missing_and_keeps_what_people_wrote(
    result: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "thesis.md"
    page.write_text(
        "# By hand\n\n<!-- measured: begin -->\nnumbers before\n<!-- measured: end -->\n\nBelow, by hand\n"
    )
    write_page(result, tmp_path)
    write_page(result, tmp_path)
    text = page.read_text()
    assert text.startswith("# By hand") and text.endswith("Below, by hand\n") and "numbers before" not in text
    for words in (
        "| 30 | 60.0% (50.0% to 70.0%) | 70.0% (60.0% to 80.0%, 2 of 3 seeds) |",
        "| 100 | 90.0% (80.0% to 100.0%) | not measured |",
        "| equal epochs | threshold | 93.0% | 90.0% to 95.0% | 640 demonstrations | 400 to 1,200 |",
        "- the next 1,000 rows would buy +0.1 points: stop collecting",
        "| full | 100.0% / 100.0% | 90.0% / 80.0% | 100.0% / 100.0% | 0.800 -> 1.400 (+0.600) |",
        "![Exact match",
    ):
        assert words in text, words
    assert "few-shot, best of 1" in (tmp_path / "thesis.svg").read_text()
