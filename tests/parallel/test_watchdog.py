"""A rank that is gone or stopped is named, and nobody waits for it for ever."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator

import pytest
import torch.distributed as dist

from burnish.errors import BurnishError
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
