"""The watchdog: each rank's heart beats in the launcher's store, and every rank listens to all the others.

A rank that was killed is noticed by whoever waits for it: a connection breaks. One that hangs (a dead disk, a stopped
process, a cable) is noticed by nobody, and the others would wait for ever. A rank that was silent for `SILENCE` is
named and this process ended; the launcher then ends the rest, or starts all of them again.

A rank that ends with an error leaves word of it in the store: the others end with the same, and one of them prints it.
Where the store is in a rank's own process, which srun and its like start without an agent, that rank ends last.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import orjson
from torch._C._distributed_c10d import PrefixStore, TCPStore

from burnish import errors
from burnish.errors import BurnishError

BEAT = 1.0
SILENCE = 30.0
"""Seconds without a beat after which a rank is taken for dead."""
BROKEN = 8.0
"""After a broken connection a rank without a beat for a quarter of this is named; no longer than this is waited."""
TOLD = 5.0
"""Seconds for which a rank that fails waits for the first one to print why, before a launcher ends that one too.

And for which the rank that hosts the store waits, when it ends, for the others to have heard why.
"""
LEFT = 1 << 40
FAILED, PRINTED, ENDED = "failed", "printed", "ended"


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
        hosts: bool = False,
        silence: float = SILENCE,
        act: Callable[[BurnishError], None] | None = None,
    ) -> None:
        self._store = PrefixStore(
            f"beats/{attempt}", TCPStore(address, port, is_master=False, wait_for_workers=False)
        )
        self._rank, self._size, self._silence = rank, size, silence
        self._hosts = hosts
        self._act = act or self._end_process
        now = time.monotonic()
        self._heard = {other: (0, now) for other in range(size) if other != rank}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        # No daemon: this process prints what it has to, and the interpreter then waits for the thread.
        self._host = threading.Thread(target=self._outlive, args=(TOLD,), name="store of the launch")

    def start(self) -> None:
        """Begin to beat and to listen."""
        self._thread.start()

    def leave(self) -> None:
        """Say that this rank ends in good order, and stop."""
        self._stop.set()
        self._thread.join(timeout=5 * BEAT)
        try:
            self._store.add(str(self._rank), LEFT)
            self._store.set(f"{ENDED}/{self._rank}", "")
            if self._hosts:
                self._outlive(self._silence)
        except (RuntimeError, OSError):  # the store went first: nobody listens any more
            return

    def silent(self, seconds: float) -> list[int]:
        """The ranks that have not been heard of for so long, and did not leave."""
        now = time.monotonic()
        return [rank for rank, (count, at) in self._heard.items() if count < LEFT and now - at > seconds]

    def blame(self) -> list[int]:
        """Who is to blame for a connection that broke just now: the ranks whose heart has stopped."""
        for _ in range(round(4 * BROKEN / BEAT)):  # looks, not seconds: this process may be stopped meanwhile
            if not self._thread.is_alive():
                break
            if gone := self.silent(BROKEN / 2):
                return gone
            time.sleep(BEAT / 4)
        return []

    def report(self, error: BaseException) -> bool:
        """Leave word of an error for the other ranks; whether this one has to print it.

        The first rank prints what it or another ran into. Where it does not, being the one that is gone, whoever
        was the first to fail does.
        """
        known = error if isinstance(error, BurnishError) else None
        said = {
            "kind": type(error).__name__,
            "rank": self._rank,
            "host": socket.gethostname(),
            "saw": known.saw if known else f"{type(error).__name__}: {_first_line(error)}",
            "rule": known.rule if known else "all ranks of a run live, or none",
            "remedy": known.remedy if known else "what that rank printed says more",
        }
        mine = orjson.dumps(said)
        try:
            first = self._store.compare_set(FAILED, "", mine.decode())
            if self._rank == 0:
                self._store.set(PRINTED, "")
            prints = self._rank == 0 or (not self._printed() and first == mine)
            self._store.set(f"{ENDED}/{self._rank}", "")
            if self._hosts and self._host.ident is None:
                self._host.start()
            return prints
        except (RuntimeError, OSError):  # the store is gone, and with it whoever could be asked
            return True

    def failure(self) -> BurnishError | None:
        """What another rank left word of; None where none did."""
        try:
            if not self._store.check([FAILED]):
                return None
            said = orjson.loads(self._store.get(FAILED))
        except (RuntimeError, OSError):
            return None
        if said["rank"] == self._rank:
            return None
        kind = RankLost if said["kind"] == RankLost.__name__ else getattr(errors, said["kind"], BurnishError)
        place = "" if kind is RankLost else f"rank {said['rank']} on {said['host']}: "
        found: BurnishError = kind(place + said["saw"], rule=said["rule"], remedy=said["remedy"])
        return found

    def _printed(self) -> bool:
        """Whether the first rank prints the error, which is waited for."""
        until = time.monotonic() + TOLD
        while not (printed := self._store.check([PRINTED])) and time.monotonic() < until:
            time.sleep(BEAT / 20)
        return bool(printed)

    def explain(self, error: Exception) -> BurnishError | None:
        """What another rank said, or that one is gone, where a connection broke; None where neither is so."""
        if not isinstance(error, RuntimeError):
            return None
        if (said := self.failure()) is not None:
            return said
        gone = self.blame()
        if (said := self.failure()) is not None:  # it took its time to say so
            return said
        how = f"it is gone, and the others cannot go on ({_first_line(error)})"
        return lost(gone, how) if gone else None

    def hush(self, error: BaseException) -> bool:
        """Stop listening, for this process ends, and report why; whether it is to be printed here."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5 * BEAT)
        return self.report(error)

    def _outlive(self, seconds: float) -> None:
        """Wait, but no longer than this, until the other ranks ask nothing of the store any more."""
        others = [f"{ENDED}/{rank}" for rank in self._heard]
        until = time.monotonic() + seconds
        while not self._store.check(others) and time.monotonic() < until:
            time.sleep(BEAT / 20)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(BEAT):
            now = time.monotonic()
            if now - last > self._silence / 2:
                # This process was stopped, and may be the others with it: what was not heard says nothing.
                self._heard = {rank: (count, now) for rank, (count, _) in self._heard.items()}
            last = now
            try:
                self._listen()
            except (RuntimeError, OSError) as error:
                if not self._stop.is_set():
                    self._act(
                        lost([0], f"the store of the launch at rank 0's node is gone ({_first_line(error)})")
                    )
                return
            if (said := self.failure()) is not None:
                self._end(said)
                return
            if gone := self.silent(self._silence):
                self._end(lost(gone, f"without a sign of life for {self._silence:.0f} s"))
                return

    def _end(self, error: BurnishError) -> None:
        """End this process with an error that it or another rank found, unless it is ending already."""
        if self._stop.wait(BEAT / 2):  # it has found out by itself, and says so
            return
        error.told = not self.report(error)
        self._act(error)

    def _end_process(self, error: BurnishError) -> None:
        if not error.told:
            sys.stderr.write(f"\n{error}\n")
            sys.stderr.flush()
        if self._host.is_alive():
            self._host.join()
        os._exit(error.exit_code)

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
    """Within the block a broken connection becomes an error that names the rank at its other end, or what it said.

    What goes wrong here the other ranks are told; it is printed once (`BurnishError.told`).
    """
    try:
        yield
    except Exception as error:
        if watchdog is None:
            raise
        known = error if isinstance(error, BurnishError) else watchdog.explain(error)
        own = watchdog.hush(known or error)
        if known is not None:
            known.told = not own
            raise known from (None if known is error else error)
        if own or os.environ.get("BURNISH_DEBUG"):
            raise
        told = BurnishError(
            str(error), rule="all ranks of a run live, or none", remedy="see what was printed"
        )
        told.told = True
        raise told from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
