"""A save that rests: by a clock of the test's own, so that nothing here takes time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from burnish.checkpoint import background, pace
from burnish.checkpoint.background import Writer
from burnish.checkpoint.files import Checkpoint, load_checkpoint, write_checkpoint
from burnish.checkpoint.pace import LEAST_REST, SHARE, Pace
from burnish.errors import Diverged

SECOND = 1.0


@dataclass
class Clock:
    """Time passes when the thread works, waits for the disk, or rests; seconds of work are counted apart."""

    now: float = 100.0
    worked: float = 7.0
    rests: list[float] = field(default_factory=list)

    def work(self, seconds: float, *, waited: float = 0.0) -> None:
        self.worked += seconds
        self.now += seconds + waited

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds

    def pace(self, num_bytes: int, *, within: float) -> Pace:
        made = Pace(
            num_bytes, within=within, clock=lambda: self.now, worked=lambda: self.worked, rest=self.rest
        )
        made.begin()
        return made


def test_after_each_piece_it_rests_until_its_work_was_the_share_of_a_core_that_it_may_take() -> None:
    clock = Clock()
    paced = clock.pace(1_000, within=1_000.0)
    for _ in range(10):
        clock.work(0.004)
        paced(100)
    assert clock.rests == pytest.approx([0.004 / SHARE - 0.004] * 10)
    assert clock.now - 100.0 == pytest.approx(10 * 0.004 / SHARE)


def test_time_in_which_it_had_to_wait_for_a_core_or_the_disk_was_rest_already() -> None:
    clock = Clock()
    paced = clock.pace(1_000, within=1_000.0)
    clock.work(0.004, waited=0.03)
    paced(100)
    assert clock.rests == pytest.approx([0.004 / SHARE - 0.034])
    clock.work(0.004, waited=1.0)
    paced(100)
    assert len(clock.rests) == 1


def test_pieces_too_small_to_rest_after_are_put_together() -> None:
    clock = Clock()
    paced = clock.pace(1_000, within=1_000.0)
    piece = LEAST_REST * SHARE / 4
    for _ in range(8):
        clock.work(piece)
        paced(1)
    assert len(clock.rests) == 1 and clock.rests[0] >= LEAST_REST
    assert clock.now - 100.0 == pytest.approx(8 * piece + clock.rests[0])


def test_a_save_too_large_for_its_share_is_spread_evenly_over_the_time_it_may_take_and_no_longer() -> None:
    clock = Clock()
    paced = clock.pace(10_000, within=20.0)
    for _ in range(100):  # 10 s of work: at its share 200 s
        clock.work(0.1)
        paced(100)
    assert 20.0 <= clock.now - 100.0 <= 20.1
    assert max(clock.rests) <= 0.2 + 1e-9 and min(clock.rests) > 0.05


def test_without_time_or_past_it_there_are_no_rests() -> None:
    clock = Clock()
    paced = clock.pace(100, within=0.0)
    clock.work(1.0)
    paced(50)
    late = clock.pace(100, within=1.0)
    clock.work(2.0)
    late(50)
    assert clock.rests == []


def test_told_to_hurry_it_rests_no_more_and_wakes_from_the_rest_that_it_takes() -> None:
    clock = Clock()
    paced = clock.pace(100, within=1_000.0)
    paced.hurry()
    clock.work(0.01)
    paced(50)
    assert clock.rests == []

    worked = [0.0]
    sleeper = Pace(100, within=1e6, clock=lambda: 0.0, worked=lambda: worked[0])
    asleep = threading.Thread(target=lambda: (sleeper.begin(), worked.__setitem__(0, 1e4), sleeper(50)))
    asleep.start()
    sleeper.hurry()
    asleep.join(30)
    assert not asleep.is_alive()


def test_every_byte_is_told_of_twice_looked_at_and_written(tmp_path: Path) -> None:
    told: list[int] = []
    made = Checkpoint(
        3, {"w": torch.ones(40_000), "k": torch.ones(7, dtype=torch.int32)}, {"m": torch.ones(9)}, {}
    )
    write_checkpoint(tmp_path, made, pace=told.append)
    looked_at = 160_000 + 36
    headers = sum(told) - looked_at - made.num_bytes
    assert 0 < headers < 1_000 and max(told) == 160_000


@dataclass
class _Timed:
    """`time.monotonic` in the test's hands."""

    now: float = 50.0

    def monotonic(self) -> float:
        return self.now


def test_a_save_may_take_half_the_time_between_the_last_two_and_never_more_than_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, given = _Timed(), []

    class Seen(Pace):
        def __init__(self, num_bytes: int, *, within: float) -> None:
            given.append((num_bytes, within))
            super().__init__(num_bytes, within=within)

    monkeypatch.setattr(background, "time", time)
    monkeypatch.setattr(background, "Pace", Seen)
    made = Checkpoint(1, {"w": torch.zeros(4)}, {"w/m": torch.zeros(4)}, {})

    def save(writer: Writer, *, copy: bool = True) -> None:
        writer.begin(made, copy=copy, before=lambda: None, after=lambda: None)
        writer.wait()

    writer = Writer(tmp_path / "a", paced=True)
    for seconds in (8.0, 30.0, 1e6):
        time.now += seconds
        save(writer)
    time.now += 10.0
    save(writer, copy=False)  # training waits for it
    writer.close()
    assert given == [(64, 4.0), (64, 15.0), (64, pace.LONGEST), (64, 0.0)]
    free = Writer(tmp_path / "b")
    time.now += 10.0
    save(free)
    free.close()
    assert given[-1] == (64, 0.0)


@pytest.mark.parametrize("how", ["wait", "close"])
def test_whoever_waits_for_a_save_has_it_hurry(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resting = threading.Event()

    class Slow(Pace):
        """Rests for an hour after the first piece, unless told to hurry."""

        def __call__(self, num_bytes: int) -> None:
            resting.set()
            self._rest(3600.0)

    monkeypatch.setattr(background, "Pace", Slow)
    writer = Writer(tmp_path, paced=True)
    writer.begin(
        Checkpoint(5, {"w": torch.arange(4.0)}, {}, {}), copy=True, before=lambda: None, after=lambda: None
    )
    assert resting.wait(30) and writer.done() is None
    getattr(writer, how)()
    saved = writer.wait()
    assert how == "wait" or (saved is not None and saved[0] == 5)
    assert load_checkpoint(tmp_path / "step-00000005").weights["w"].tolist() == [0.0, 1.0, 2.0, 3.0]
    writer.close()


def test_a_number_that_is_not_finite_is_found_wherever_it_lies(tmp_path: Path) -> None:
    for at in (0, 16_383, 16_384, 40_000):
        numbers = torch.ones(40_001, dtype=torch.bfloat16)
        numbers[at] = float("inf")
        with pytest.raises(Diverged, match="step 6: w holds"):
            write_checkpoint(tmp_path, Checkpoint(6, {"w": numbers.reshape(1, -1)}, {}, {}))
    assert not list(tmp_path.iterdir())


def test_a_copy_is_laid_out_as_a_file_has_it() -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    copied = Checkpoint(1, {"w": turned}, {}, {}).copied().weights["w"]
    assert copied.is_contiguous() and torch.equal(copied, turned)


TEAM = """
import os, torch
from pathlib import Path
from burnish.checkpoint.background import Writer
from burnish.checkpoint.files import Checkpoint

made = Checkpoint(1, {"w": torch.ones(400_000)}, {"half": torch.ones(400_000, dtype=torch.bfloat16)}, {})
made.weights["w"].sum()
threads, seen = lambda: len(os.listdir("/proc/self/task")), []
before = threads()
writer = Writer(Path(os.environ["PLACE"]), paced=True)
writer.begin(made, copy=True, before=lambda: None, after=lambda: seen.append(threads()))
writer.wait()
print(before >= 2, seen[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_the_thread_that_writes_starts_no_threads_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PLACE": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", TEAM], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.split() == ["True", "1"], ran.stderr
