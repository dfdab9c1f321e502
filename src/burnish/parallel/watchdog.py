"""The watchdog: each rank's heart beats in the launcher's store, and every rank listens to all the others.

A rank that was killed is noticed by whoever waits for it: a connection breaks. One that hangs (a dead disk, a stopped
process, a cable) is noticed by nobody, and the others would wait for ever. A rank that was silent for `SILENCE` is
named and this process ended; the launcher then ends the rest, or starts all of them again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch._C._distributed_c10d import PrefixStore, TCPStore

from burnish.errors import BurnishError

BEAT = 1.0
SILENCE = 30.0
"""Seconds without a beat after which a rank is taken for dead."""
BROKEN = 8.0
"""After a broken connection a rank without a beat for a quarter of this is named; no longer than this is waited."""
LEFT = 1 << 40


class RankLost(BurnishError):
    """A rank of the run is gone."""


class Watchdog:
    """Beats for this rank and listens to the others, in a thread of its own."""

    def __init__(
        self,
        address: str,
        port: int,
        *,
        rank: int,
        size: int,
        attempt: int = 0,
        silence: float = SILENCE,
        act: Callable[[BurnishError], None] | None = None,
    ) -> None:
        self._store = PrefixStore(
            f"beats/{attempt}", TCPStore(address, port, is_master=False, wait_for_workers=False)
        )
        self._rank, self._size, self._silence = rank, size, silence
        self._act = act or _end_process
        now = time.monotonic()
        self._heard = {other: (0, now) for other in range(size) if other != rank}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to beat and to listen."""
        self._thread.start()

    def leave(self) -> None:
        """Say that this rank ends in good order, and stop."""
        self._stop.set()
        self._thread.join(timeout=5 * BEAT)
        try:
            self._store.add(str(self._rank), LEFT)
        except (RuntimeError, OSError):  # the store went first: nobody listens any more
            return

    def silent(self, seconds: float) -> list[int]:
        """The ranks that have not been heard of for so long, and did not leave."""
        now = time.monotonic()
        return [rank for rank, (count, at) in self._heard.items() if count < LEFT and now - at > seconds]

    def blame(self) -> list[int]:
        """Who is to blame for a connection that broke just now: the ranks whose heart has stopped."""
        until = time.monotonic() + BROKEN
        while time.monotonic() < until and self._thread.is_alive():
            if gone := self.silent(BROKEN / 2):
                return gone
            time.sleep(BEAT / 4)
        return []

    def _watch(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self._listen()
            except (RuntimeError, OSError) as error:
                if not self._stop.is_set():
                    self._act(
                        lost([0], f"the store of the launch at rank 0's node is gone ({_first_line(error)})")
                    )
                return
            if gone := self.silent(self._silence):
                self._act(lost(gone, f"without a sign of life for {self._silence:.0f} s"))
                return

    def _listen(self) -> None:
        """Beat once, and note who has beaten since."""
        self._store.add(str(self._rank), 1)
        for rank, (count, _) in list(self._heard.items()):
            now = self._store.add(str(rank), 0)
            if now != count:
                self._heard[rank] = (now, time.monotonic())


def lost(ranks: list[int], how: str) -> RankLost:
    """The error of ranks that are gone."""
    named = ", ".join(f"rank {rank}" for rank in ranks)
    return RankLost(
        f"{named}: {how}",
        rule="all ranks of a run live, or none: an update needs every one of them",
        remedy="the last checkpoint is whole: burnish resume RUN, on as many ranks as there are",
    )


@contextmanager
def naming_the_lost(watchdog: Watchdog | None) -> Iterator[None]:
    """Within the block a broken connection becomes an error that names the rank at its other end."""
    try:
        yield
    except RuntimeError as error:
        if watchdog is None or isinstance(error, BurnishError) or not (gone := watchdog.blame()):
            raise
        raise lost(gone, f"it is gone, and the others cannot go on ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _end_process(error: BurnishError) -> None:
    sys.stderr.write(f"\n{error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)
