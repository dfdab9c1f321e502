"""Checkpoints written by a thread: the step that begins one waits for a copy in memory, and for nothing else."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from burnish.checkpoint.files import Checkpoint, write_checkpoint
from burnish.checkpoint.pace import LONGEST, Pace

GIVES_WAY = 10
"""How much nicer the thread is than training: on a CPU that computes with all its cores it gets a tenth of one."""


class Writer:
    """One checkpoint at a time on its way to `folder`; the thread calls `before` it is written and `after` it is.

    With `paced` it takes a small share of a core, for at most half the time that lay between the last two saves, since
    the next one has to wait for it. Whoever waits ends that.
    """

    def __init__(self, folder: Path, *, paced: bool = False) -> None:
        self._folder, self._paced = folder, paced
        self._pace: Pace | None = None
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_give_way)
        self._begun: tuple[int, Future[Path]] | None = None

    def begin(
        self, made: Checkpoint, *, copy: bool, before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        """Copy the numbers and go on; without `copy` the checkpoint is written before this returns.

        Call `wait` first: two saves are never under way at once.
        """
        mine = made.copied() if copy else made
        last, self._last = self._last, time.monotonic()
        within = min(LONGEST, (self._last - last) / 2) if copy and self._paced else 0.0
        self._pace = pace = Pace(2 * made.num_bytes, within=within)

        def write() -> Path:
            before()
            pace.begin()
            path = write_checkpoint(self._folder, mine, pace=pace)
            after()
            return path

        self._begun = (made.step, self._thread.submit(write) if copy else _done(write))

    def done(self) -> tuple[int, Path] | None:
        """The step and place of a checkpoint that has become complete, once; raises what writing it raised."""
        return self.wait() if self._begun is not None and self._begun[1].done() else None

    def wait(self) -> tuple[int, Path] | None:
        """The same, after waiting for it; None where none was begun."""
        if self._begun is None:
            return None
        self._hurry()
        (step, future), self._begun = self._begun, None
        return step, future.result()

    def close(self) -> None:
        """Let what is being written come to its end."""
        self._hurry()
        self._thread.shutdown(wait=True)

    def _hurry(self) -> None:
        if self._pace is not None:
            self._pace.hurry()


def _done(work: Callable[[], Path]) -> Future[Path]:
    """What came of the work, done at once and by whoever asks: a run that waits for it gives way to nobody."""
    future: Future[Path] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + GIVES_WAY))
