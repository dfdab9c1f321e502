"""What a run was expected to hold and take stands beside what it did."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from burnish.training.events import Stepped
from burnish.training.reckoning import LOOKED_AT, WARM_UP, Reckoning, in_words
from burnish.training.run import prepare
from tests.training.test_run import ModelDirectory, recipe


@pytest.fixture
def reckoning(model_directory: ModelDirectory, data_file: Path, tmp_path: Path) -> Reckoning:
    return Reckoning(prepare(recipe(model_directory("llama"), data_file, tmp_path).recipe))


def stepped(number: int, seconds: float, memory: int = 1) -> Stepped:
    blank: dict[str, Any] = dict.fromkeys((field.name for field in dataclasses.fields(Stepped)), 0)
    return Stepped(**{**blank, "step": number, "seconds": seconds, "memory_bytes": memory})


def test_time_is_expected_from_what_a_token_took_after_the_warm_up(reckoning: Reckoning) -> None:
    session = reckoning._session
    tokens = [int(session.data.train.row_lengths[session.plan.rows_of(k)].sum()) for k in range(5)]
    for number in range(1, 6):  # a slow first update, then a millisecond for each token, then twice that
        pace = 1.0 if number <= WARM_UP else 0.001 if number <= WARM_UP + LOOKED_AT else 0.002
        reckoning.watch(stepped(number, pace * tokens[number - 1], memory=100 - number))
    found = reckoning.result()
    assert found is not None
    later = sum(tokens[WARM_UP + LOOKED_AT :])
    assert found["seconds"] == {
        "expected": pytest.approx(0.001 * later, abs=1e-3),
        "measured": pytest.approx(0.002 * later, abs=1e-3),
        "after_step": 3,
    }
    assert found["memory"]["measured"] == 99
    assert found["memory"]["expected"] >= sum(found["memory"]["parts"].values()) > 0
    assert "expected" in in_words(found)


def test_a_run_too_short_to_be_looked_at_expects_no_time_and_one_without_steps_nothing(
    reckoning: Reckoning,
) -> None:
    assert reckoning.result() is None
    reckoning.watch(stepped(1, 1.0))
    found = reckoning.result()
    assert found is not None and found["seconds"] is None
