"""The next update's packs, laid out by a thread while the device computes this one's.

A step's packs are a pure function of its number, so that what is made ahead is what would have been made in time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """`make(step)` for the steps below `stop`, each begun when the one before it is taken."""

    def __init__(self, make: Callable[[int], Made], stop: int) -> None:
        self._make, self._stop = make, stop
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="packs")
        self._begun: tuple[int, Future[Made]] | None = None

    def take(self, step: int) -> Made:
        """What belongs to `step`; raises what making it raised."""
        number, future = self._begun or (-1, None)
        made = future.result() if future is not None and number == step else self._make(step)
        following = step + 1
        self._begun = (
            (following, self._pool.submit(self._make, following)) if following < self._stop else None
        )
        return made

    def forget(self) -> None:
        """Drop what was begun: what it rests on has changed."""
        self._begun = None
