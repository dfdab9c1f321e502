"""How a save in the background keeps out of training's way where training computes on every core.

All threads of a step wait for the one that is held up: a millisecond of work on its core is a millisecond of the
step. So the thread that writes does a few milliseconds of work, then rests for many times as long.

    pace = Pace(2 * made.num_bytes, within=30.0)
    pace(4_194_304)      # in the writing thread, after each piece of work: rests
    pace.hurry()         # in any other: somebody waits for the save now
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SHARE = 0.05
"""Of one core. With the priority that it has, a thread that never rests gets a tenth of a core that is computing."""
LONGEST = 60.0
"""Seconds for which one save is spread out. So much later is a checkpoint there than it could be, which is what a kill
may cost, and so long the copy takes memory; where this is too short for `SHARE`, the work is spread over all of it."""
LEAST_REST = 0.01
"""Seconds: to fall asleep and wake up again is work too."""


class Pace:
    """Spreads work on `num_bytes` over at most `within` seconds, by rests after its pieces, until told to hurry."""

    def __init__(
        self,
        num_bytes: int,
        *,
        within: float,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
        rest: Callable[[float], object] | None = None,
    ) -> None:
        self._hurried = threading.Event()
        self._clock, self._worked, self._rest = clock, worked, rest or self._hurried.wait
        self._within, self._ahead, self._done = within, num_bytes, 0
        self._since: tuple[float, float] | None = None
        self._until = 0.0

    def begin(self) -> None:
        """The clocks start, in the thread that works: seconds of work are counted by thread."""
        self._since = self._clock(), self._worked()
        self._until = self._since[0] + self._within

    def __call__(self, num_bytes: int) -> None:
        """So many bytes more are done."""
        self._done += num_bytes
        if self._since is None or self._hurried.is_set():
            return
        now, (since, before) = self._clock(), self._since
        wished = (self._worked() - before) / SHARE
        granted = (self._until - since) * self._done / max(self._ahead, 1)
        if (pause := min(wished, granted) - (now - since)) < LEAST_REST:
            return
        self._rest(pause)
        self._since = self._clock(), self._worked()
        self._ahead, self._done = self._ahead - self._done, 0

    def hurry(self) -> None:
        """No more rests; the one that is being taken ends."""
        self._hurried.set()


def at_once(num_bytes: int) -> None:
    """The pace of a save that somebody waits for, or that has a core of its own: none."""
