"""The learning rate is a function of the step alone."""

from __future__ import annotations

import pytest

from burnish.optim.schedule import Schedule, warmup_length

# The table in the module: steps 0, 4, 9, 10, 55, 99 of 100, ten of warm-up.
TABLE = {
    "constant": [0.1, 0.5, 1, 1, 1, 1],
    "linear": [0.1, 0.5, 1, 1, 0.5, 1 / 90],
    "cosine": [0.1, 0.5, 1, 1, 0.5, 0.000305],
    "wsd": [0.1, 0.5, 1, 1, 1, 5 / 90],
}


@pytest.mark.parametrize("kind", TABLE)
def test_the_table_of_the_module(kind: str) -> None:
    schedule = Schedule(kind, 1.0, 100, 10)
    assert [schedule.rate(step) for step in (0, 4, 9, 10, 55, 99)] == pytest.approx(TABLE[kind], abs=1e-5)


@pytest.mark.parametrize("kind", TABLE)
def test_every_update_moves_something(kind: str) -> None:
    for steps in (1, 2, 7):
        schedule = Schedule(kind, 1.0, steps, warmup_length(steps, warmup_steps=None, warmup_ratio=0.03))
        assert all(schedule.rate(step) > 0 for step in range(steps))


def test_the_warm_up_is_given_in_steps_or_as_a_share_and_never_longer_than_the_run() -> None:
    assert warmup_length(100, warmup_steps=7, warmup_ratio=0.5) == 7
    assert warmup_length(100, warmup_steps=None, warmup_ratio=0.03) == 3
    assert warmup_length(10, warmup_steps=None, warmup_ratio=0.03) == 1
    assert warmup_length(5, warmup_steps=50, warmup_ratio=0.0) == 5
