"""The reckoning: what a run was expected to hold and to take, beside what it did.

    {"memory": {"expected": 1391000000, "measured": 1421000000, "parts": {"weights": 52000000, ...}},
     "seconds": {"expected": 52.1, "measured": 50.9, "after_step": 3}}

Memory is expected by the arithmetic of `training.forecast` before the first step. Time is expected after a few steps:
what they took for each token, times the tokens still to come.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from burnish.training.events import Event, Stepped
from burnish.training.session import Session

WARM_UP = 1
"""Updates that say nothing of the speed: the first allocates the optimiser's state and compiles shapes."""

LOOKED_AT = 2
"""Updates after these that the expectation rests on."""


class Reckoning:
    """Watches the events of one process's part of a run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._first = session.state.step
        self._steps: list[Stepped] = []
        self._lengths = session.data.train.row_lengths

    def watch(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, Stepped):
            self._steps.append(event)

    def result(self) -> dict[str, Any] | None:
        """Memory in bytes, and seconds of the updates behind those looked at; None before the first."""
        if not self._steps:
            return None
        expected = self._session.expected
        return {
            "memory": {
                "expected": round(expected.total),
                "measured": max(step.memory_bytes for step in self._steps),
                "parts": {name: round(size) for name, size in asdict(expected).items()},
            },
            "seconds": self._seconds(),
        }

    def _seconds(self) -> dict[str, float] | None:
        known = WARM_UP + LOOKED_AT
        if len(self._steps) <= known:
            return None
        looked_at, later = self._steps[WARM_UP:known], self._steps[known:]
        rate = sum(s.seconds for s in looked_at) / sum(self._tokens(s) for s in looked_at)
        return {
            "expected": round(rate * sum(self._tokens(s) for s in later), 3),
            "measured": round(sum(s.seconds for s in later), 3),
            "after_step": self._first + known,
        }

    def _tokens(self, step: Stepped) -> int:
        """The tokens that the plan gives to an update: known before it is made."""
        return int(self._lengths[self._session.plan.rows_of(step.step - 1)].sum())


def in_words(reckoned: dict[str, Any]) -> str:
    """The reckoning in one line."""
    memory, seconds = reckoned["memory"], reckoned["seconds"]
    held = f"held {memory['measured'] / 2**30:,.2f} GiB, {memory['expected'] / 2**30:,.2f} expected"
    if seconds is None:
        return held
    took = f"took {seconds['measured']:,.1f} s after step {seconds['after_step']}, {seconds['expected']:,.1f} expected"
    return f"{held}; {took}"
