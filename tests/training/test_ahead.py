"""What is made ahead is what would have been made in time, whatever order it is asked for in."""

from __future__ import annotations

import threading

import pytest

from burnish.training.ahead import Ahead


def test_steps_come_in_order_and_the_next_is_made_while_this_one_is_used() -> None:
    made: list[tuple[int, str]] = []
    second = threading.Event()

    def make(step: int) -> int:
        made.append((step, threading.current_thread().name))
        if step == 1:
            second.set()
        return step * 10

    ahead = Ahead(make, stop=3)
    assert ahead.take(0) == 0
    assert second.wait(timeout=30)  # begun without being asked for
    assert [ahead.take(1), ahead.take(2)] == [10, 20]
    assert [step for step, _ in made] == [0, 1, 2]  # each once, none past the end
    assert all(name.startswith("packs") for _, name in made[1:])


def test_a_step_out_of_turn_is_made_on_the_spot() -> None:
    ahead = Ahead(lambda step: step, stop=100)
    assert [ahead.take(step) for step in (0, 7, 8, 3)] == [0, 7, 8, 3]


def test_what_goes_wrong_ahead_is_raised_where_it_is_taken() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("row 17")
        return step

    ahead = Ahead(make, stop=3)
    assert ahead.take(0) == 0
    with pytest.raises(ValueError, match="row 17"):
        ahead.take(1)
