"""A rank that is gone or stopped is named, and nobody waits for it for ever."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from burnish.errors import BurnishError, DataError, UsageError
from burnish.parallel import watchdog
from burnish.parallel.watchdog import RankLost, Watchdog, naming_the_lost
from tests.parallel.gang import free_port


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A launcher's store, and a heart that beats fast."""
    monkeypatch.setattr(watchdog, "BEAT", 0.02)
    monkeypatch.setattr(watchdog, "BROKEN", 0.6)
    number = free_port()
    store = dist.TCPStore(
        "127.0.0.1", number, is_master=True, wait_for_workers=False, timeout=datetime.timedelta(seconds=9)
    )
    yield number
    del store


def pair(port: int, said: list[BurnishError], silence: float) -> tuple[Watchdog, Watchdog]:
    dogs = [
        Watchdog("127.0.0.1", port, rank=rank, size=2, silence=silence, act=said.append) for rank in (0, 1)
    ]
    for dog in dogs:
        dog.start()
    return dogs[0], dogs[1]


def wait_for(condition: list[BurnishError], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition and time.monotonic() < until:
        time.sleep(0.01)


def test_a_silent_rank_is_named_and_a_living_one_is_not(port: int) -> None:
    said: list[BurnishError] = []
    first, second = pair(port, said, silence=0.4)
    time.sleep(0.6)
    assert said == []
    second._stop.set()  # its heart stops, and it did not leave
    wait_for(said)
    first.leave()
    assert [type(error) for error in said] == [RankLost]
    assert said[0].saw.startswith("rank 1: ")


def test_a_rank_that_left_in_good_order_is_not_missed(port: int) -> None:
    said: list[BurnishError] = []
    first, second = pair(port, said, silence=0.3)
    time.sleep(0.1)
    second.leave()
    time.sleep(0.6)
    first.leave()
    assert said == []


def test_a_broken_connection_is_blamed_on_the_rank_whose_heart_stopped(port: int) -> None:
    first, second = pair(port, [], silence=60)
    time.sleep(0.1)
    second._stop.set()
    with pytest.raises(RankLost, match="rank 1: it is gone"), naming_the_lost(first):
        raise RuntimeError("Connection closed by peer")
    first.leave()


def test_an_error_while_all_hearts_beat_stays_what_it_is(port: int) -> None:
    first, second = pair(port, [], silence=60)
    with pytest.raises(RuntimeError, match="shapes"), naming_the_lost(first):
        raise RuntimeError("shapes do not fit")
    first.leave()
    second.leave()


def test_what_one_rank_runs_into_the_first_one_prints_and_no_other(port: int) -> None:
    said: list[BurnishError] = []
    first, second = pair(port, said, silence=60)
    assert second.report(UsageError("the recipe", rule="r", remedy="m")) is False
    wait_for(said)
    first.leave()
    assert [type(error) for error in said] == [UsageError]
    assert said[0].saw.startswith("rank 1 on ") and said[0].saw.endswith(": the recipe")
    assert not said[0].told


def test_what_all_ranks_find_the_first_one_prints(port: int) -> None:
    dogs = [Watchdog("127.0.0.1", port, rank=rank, size=3, act=lambda error: None) for rank in range(3)]
    error = UsageError("all the same", rule="r", remedy="m")
    assert [dog.report(error) for dog in dogs] == [True, False, False]


def test_where_the_first_rank_is_gone_the_first_to_fail_prints(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TOLD", 0.05)
    dogs = [Watchdog("127.0.0.1", port, rank=rank, size=3, act=lambda error: None) for rank in range(3)]
    assert [dogs[rank].report(ValueError("x")) for rank in (2, 1)] == [True, False]
    found = dogs[1].failure()
    assert found is not None and found.saw.endswith(": ValueError: x")


@pytest.mark.parametrize("ends", ["leave", "report"])
def test_the_rank_that_hosts_the_store_ends_after_the_others(port: int, ends: str) -> None:
    dogs = [Watchdog("127.0.0.1", port, rank=rank, size=3, hosts=rank == 0, silence=60) for rank in range(3)]

    def end(dog: Watchdog) -> None:
        dog.start()
        dog.leave() if ends == "leave" else dog.hush(UsageError("all the same", rule="r", remedy="m"))
        if dog._host.ident is not None:
            dog._host.join()

    host = threading.Thread(target=end, args=(dogs[0],))
    host.start()
    for dog in dogs[1:]:
        host.join(0.3)
        assert host.is_alive()
        end(dog)
    host.join(2.0)
    assert not host.is_alive()


def test_an_error_within_the_block_is_printed_once(port: int) -> None:
    first, second = pair(port, [], silence=60)
    told = []
    for dog in (first, second):
        with pytest.raises(DataError, match="a row") as caught, naming_the_lost(dog):
            raise DataError("a row", rule="r", remedy="m")
        told.append(caught.value.told)
    assert told == [False, True]


def test_ranks_that_were_all_stopped_for_a_while_do_not_accuse_each_other(port: int) -> None:
    said: list[BurnishError] = []
    first, second = pair(port, said, silence=0.4)
    time.sleep(0.1)
    for dog, seconds in ((first, 0.8), (second, 1.0)):  # as by SIGSTOP and SIGCONT, or a laptop put to sleep
        dog._stop = Sleeper(dog._stop, seconds)
    time.sleep(1.5)
    assert said == []
    first.leave()
    second.leave()


class Sleeper:
    """An event whose next wait takes so long."""

    def __init__(self, event: threading.Event, seconds: float) -> None:
        self._event, self._seconds = event, seconds

    def wait(self, timeout: float) -> bool:
        seconds, self._seconds = self._seconds, 0.0
        time.sleep(seconds)
        return self._event.wait(timeout)

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()
