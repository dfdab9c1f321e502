"""F16: one long run, killed every few seconds and resumed until it is done: equal to the untouched one, and no fuller.

Before each kill the run's open files, its threads, and what lies in its directory are counted. What they were at most
in the last third of its lives must not be more than in the first third.
"""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import NamedTuple

from burnish.experiments.reliability.bench import in_a_child, wait_for
from burnish.experiments.reliability.kills import CONFIGURATIONS, Bench
from burnish.experiments.reliability.outcome import Outcome
from burnish.training.run import resume, train

EPOCHS_OF_A_LIFE = 30
LIFE = (1.0, 5.0)
"""Seconds from the start of a process to its kill, at random; starting takes about one of them."""
LONGEST = 3_600.0


class Held(NamedTuple):
    """What a process and its run hold at one moment."""

    files: int
    threads: int
    names_on_disk: int
    megabytes_on_disk: int


def soak(place: Path, *, seed: int, trials: int = 60) -> Outcome:
    """F16: the run is long enough for about so many kills; each is a trial."""
    outcome = Outcome("F16", "one run, killed every few seconds until it is done", seed)
    rng = random.Random(seed)
    keys = {"num_epochs": EPOCHS_OF_A_LIFE * trials, "save_steps": 5, "eval_steps": 100}
    bench = Bench(place, CONFIGURATIONS["full, packed"] | keys, patience=LONGEST)
    path = place / "soaked"
    held: list[Held] = []
    code: int | None = None
    while code is None and len(held) < 10 * trials:
        job = (
            partial(resume, path)
            if (path / "resolved.yaml").exists()
            else partial(train, bench.recipe("soaked"))
        )
        child = in_a_child(job, place / "log")
        code = wait_for(child, seconds=rng.uniform(*LIFE))
        if code is None:
            held.append(held_by(child, path))
            os.kill(child, signal.SIGKILL)
            wait_for(child, seconds=60.0)
            outcome.note("kills")
    failure = bench.differences("soaked") if code == 0 else f"the last life ended with {code}"
    if failure or (failure := grown(held)):
        outcome.failures.append(failure)
    outcome.margin = f"at most {' '.join(f'{most} {name}' for name, most in most_of(held)._asdict().items())}"
    return outcome


def held_by(pid: int, run: Path) -> Held:
    """Counted from outside; the log of metrics, which grows by a line an update, is left out."""
    files = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    total = sum(size_of(path) for path in files)
    return Held(len(list(Path(f"/proc/{pid}/fd").iterdir())), len(list(Path(f"/proc/{pid}/task").iterdir())),
                len(files), total >> 20)  # fmt: skip


def size_of(path: Path) -> int:
    """The size of a file, which may just have been deleted."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def most_of(held: list[Held]) -> Held:
    """The most of each."""
    return Held(*(max(each, default=0) for each in zip(*held, strict=True))) if held else Held(0, 0, 0, 0)


def grown(held: list[Held]) -> str | None:
    """What the last third of a run's lives held more of than the first."""
    third = len(held) // 3
    before, after = most_of(held[:third]), most_of(held[len(held) - third :])
    more = [
        f"{name}: {was} -> {now}"
        for name, was, now in zip(Held._fields, before, after, strict=True)
        if now > was
    ]
    return "; ".join(more) or None
