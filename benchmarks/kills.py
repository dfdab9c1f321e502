"""A rank of two killed at random instants: how soon the other ends, and whether the run goes on to the same bits.

    python benchmarks/kills.py --times 20                 ranks killed, the run resumed by hand, until it is done
    python benchmarks/kills.py --times 6 --torchrun       the same, torchrun starting all ranks again by itself

Half of the kills are at a moment drawn from a whole run's time, its start and end included; half are inside a save:
SIGKILL at one of the places of `burnish.checkpoint.faults` in the rank that writes, or to the other one while the
draft of a checkpoint lies there. What is compared with the run that nobody killed: every checkpoint that both kept,
all its files; the finished model; every number of metrics.jsonl but times and sizes of the process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from ranks import environment, free_port

PLACES = ("write:weights.safetensors", "write:MANIFEST.json", "draft", "rename", "folder")
WAYS: dict[str, dict[str, Any]] = {
    "replicate, full": {"data_parallel": "replicate"},
    "shard, full": {"data_parallel": "shard"},
    "shard, LoRA": {"data_parallel": "shard", "adapter": "lora"},
    "context, full": {"context_parallel": 2},
}
KEYS: dict[str, Any] = {
    "num_epochs": 4,
    "save_steps": 2,
    "save_total_limit": 3,
    "val_set_size": 8,
    "global_batch_size": 8,
    "micro_batch_size": 2,
}
PATIENCE = 300.0
OWN = ("seconds", "memory_bytes")
"""What a line of metrics says of the process that made it."""


@dataclass
class Bench:
    """One way of sharing a run out: its recipe, the run that nobody killed, and how long it took."""

    folder: Path
    way: str
    torchrun: bool
    recipe: Path = field(init=False)
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        from ranks import SMALL, make_recipe

        self.folder.mkdir(parents=True)
        self.recipe = make_recipe(self.folder, SMALL, **KEYS, **WAYS[self.way])
        launch = Launch(self, "straight")  # once for the caches: rows are encoded, files are read
        assert launch.wait() == 0, (self.folder / "said-0").read_text()[-3000:]
        shutil.rmtree(self.run("straight"))
        started = time.monotonic()
        assert Launch(self, "straight").wait() == 0
        self.seconds = time.monotonic() - started

    def run(self, name: str) -> Path:
        """A run's directory."""
        return self.folder / "runs" / name

    def difference(self, name: str) -> str | None:
        """The first thing that a run has otherwise than the one that nobody killed."""
        one, other = self.run("straight"), self.run(name)
        kept = [{path.name for path in run.glob("checkpoints/step-*")} for run in (one, other)]
        if max(kept[0]) not in kept[1]:
            return "the last checkpoint is another one"
        files = [f"checkpoints/{step}/{file}" for step in sorted(kept[0] & kept[1]) for file in FILES]
        for file in [*files, "final/model.safetensors"]:
            if (one / file).read_bytes() != (other / file).read_bytes():
                return f"{file} differs"
        return None if numbers(one) == numbers(other) else "metrics.jsonl differs"


FILES = ("weights.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json")


def numbers(run: Path) -> list[dict[str, Any]]:
    """A run's metrics without what hangs on the machine."""
    lines = [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    return [{key: value for key, value in line.items() if key not in OWN} for line in lines]


class Launch:
    """Two ranks that train, or go on with, a run: processes of this one, or torchrun's."""

    def __init__(self, bench: Bench, name: str, *, fault: str | None = None, restarts: int = 0) -> None:
        self.run, self.waited = bench.run(name), 0.0
        again = (self.run / "resolved.yaml").exists()
        words = ["resume", str(self.run)] if again else ["train", str(bench.recipe), f"run_name={name}"]
        if not again and self.run.exists():  # killed before it was a run
            shutil.rmtree(self.run)
        self._torchrun: subprocess.Popen[bytes] | None = None
        self._members: list[Any] = []
        if bench.torchrun:
            more = ["--processes", "2", "--restarts", str(restarts)]
            with (bench.folder / "said-0").open("ab") as said:
                command = [sys.executable, "-m", "burnish", *words, *more]
                self._torchrun = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
            return
        served = multiprocessing.get_context("forkserver")
        served.set_forkserver_preload(["burnish.training.run", "burnish.cli.train", "burnish.cli.resume"])
        port = free_port()
        for rank in range(2):
            told = environment(rank, 2, port) | ({"BURNISH_FAULT": fault} if fault and rank == 0 else {})
            said_by = bench.folder / f"said-{rank}"
            self._members.append(served.Process(target=member, args=(words, told, said_by)))
            self._members[-1].start()

    def kill(self, rank: int) -> bool:
        """SIGKILL to a rank; false where it is not there."""
        if self._torchrun is None:
            pid = self._members[rank].pid if self._members[rank].is_alive() else None
        else:
            pid = rank_of(self._torchrun.pid, rank)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def ranks(self) -> list[int | None]:
        """The processes of torchrun's ranks."""
        assert self._torchrun is not None
        return [rank_of(self._torchrun.pid, rank) for rank in range(2)]

    def code(self) -> int | None:
        """What it ended with: of its ranks the first that is not 0; None while one of them is there."""
        if self._torchrun is not None:
            return self._torchrun.poll()
        codes = [member.exitcode for member in self._members]
        return None if None in codes else next((code for code in codes if code), 0)

    def any_ended(self) -> bool:
        """Whether one of its ranks is no more."""
        return self.code() is not None or any(member.exitcode is not None for member in self._members)

    def wait(self) -> int:
        """The same when all have ended; past a limit they are killed and 124 is said.

        `waited` counts the seconds in which this process ran: those in which it was stopped are nobody's.
        """
        self.waited, last = 0.0, time.monotonic()
        while (code := self.code()) is None:
            if self.waited > PATIENCE:
                self.end()
                return 124
            time.sleep(0.01)
            now = time.monotonic()
            self.waited, last = self.waited + min(now - last, 0.2), now
        return code

    def end(self) -> None:
        """Leave nothing behind."""
        if self._torchrun is not None:
            os.killpg(self._torchrun.pid, signal.SIGKILL)
        for one in self._members:
            one.kill()


def member(words: list[str], told: dict[str, str], said: Path) -> None:
    """One rank: the command line, in a process that has imported what it needs."""
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(told)
    sys.argv = ["burnish", *words]
    from burnish.__main__ import main

    main()


def rank_of(launcher: int, rank: int) -> int | None:
    """A rank's process among those that a launcher has started, found by its environment."""
    found = Path(f"/proc/{launcher}/task/{launcher}/children")
    for child in found.read_text().split() if found.exists() else []:
        try:
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
        except OSError:
            continue
    return None


@dataclass
class Tally:
    """What came of the kills."""

    kinds: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    runs: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many there were."""
        return sum(self.kinds.values())

    def add(self, kind: str) -> None:
        """One more."""
        self.kinds[kind] = self.kinds.get(kind, 0) + 1


def kill_until_done(bench: Bench, name: str, most: int, draw: random.Random, tally: Tally) -> None:
    """Kill a rank, go on, kill again; after two to four kills the run may end, and is compared."""
    planned = min(most, draw.randint(2, 4))
    done = 0
    for _ in range(planned + 30):
        if done == planned or (bench.run(name) / "final").exists():
            break
        kind, took = killed_once(bench, name, draw)
        if kind is None:
            continue
        done += 1
        tally.add(kind)
        tally.slowest = max(tally.slowest, took)
        print(
            f"  {bench.way:16} {name}: {kind}; {newest(bench.run(name))}; the other ended after {took:.1f} s"
        )
    code = 0 if (bench.run(name) / "final").exists() else Launch(bench, name).wait()
    judge(bench, name, code, tally)


def killed_once(bench: Bench, name: str, draw: random.Random) -> tuple[str | None, float]:
    """One launch with one kill in it, and how long the other rank went on; None where it was done before."""
    victim = draw.randrange(2)
    in_save = draw.random() < 0.5
    fault = f"kill@{draw.choice(PLACES)}:{draw.randint(1, 6)}" if in_save and victim == 0 else None
    launch = Launch(bench, name, fault=fault)
    if fault is not None:
        while not launch.any_ended():
            time.sleep(0.005)
        if launch.code() == 0:
            return None, 0.0
        hit, kind = True, f"rank 0 inside a save ({fault.partition('@')[2]})"
    elif in_save:
        skip = draw.randint(0, 5)
        hit = in_draft(launch, skip) and launch.kill(victim)
        kind = f"rank {victim} while rank 0 saves"
    else:
        at = draw.uniform(0.05, 1.0) * bench.seconds
        time.sleep(at)
        hit, kind = launch.kill(victim), f"rank {victim} after {at:.1f} s"
    code = launch.wait()
    return (kind, launch.waited) if hit and code else (None, 0.0)


def in_draft(launch: Launch, skip: int) -> bool:
    """Wait until a checkpoint is being written, the one after `skip` others; false where the run ends first."""
    seen: set[str] = set()
    until = time.monotonic() + PATIENCE
    while launch.code() is None and time.monotonic() < until:
        seen |= {path.name for path in launch.run.glob("checkpoints/.tmp-*")}
        if len(seen) > skip:
            return True
        time.sleep(0.0005)
    return False


def restart_until_done(bench: Bench, name: str, most: int, draw: random.Random, tally: Tally) -> None:
    """One launch by torchrun, a rank of it killed two or three times; nobody else does anything."""
    planned = min(most, draw.randint(2, 3))
    launch = Launch(bench, name, restarts=planned)
    try:
        for _ in range(planned):
            kind = kill_of_torchrun(bench, launch, draw)
            if kind is None:
                break
            tally.add(kind)
            print(f"  {bench.way:16} {name}: {kind}; {newest(bench.run(name))}", flush=True)
        code = launch.wait()
    finally:
        if launch.code() is None:
            launch.end()
    judge(bench, name, code, tally)


def kill_of_torchrun(bench: Bench, launch: Launch, draw: random.Random) -> str | None:
    """Kill a rank once both are there, and wait until both have been started again; None where the run was over."""
    before = wait_for_ranks(launch, [])
    victim = draw.randrange(2)
    if draw.random() < 0.5:
        kind = f"rank {victim} while rank 0 saves"
        if not in_draft(launch, draw.randint(0, 5)):
            return None
    else:
        at = draw.uniform(0.0, 1.0) * bench.seconds
        kind = f"rank {victim} after {at:.1f} s"
        time.sleep(at)
    if not launch.kill(victim):
        return None
    wait_for_ranks(launch, before)
    return kind


def wait_for_ranks(launch: Launch, others: list[int | None]) -> list[int | None]:
    """The processes of both ranks, none of which is one of the `others`; what there is where the launch ends."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and launch.code() is None:
        found = launch.ranks()
        if None not in found and not set(found) & set(others):
            return found
        time.sleep(0.02)
    return []


def judge(bench: Bench, name: str, code: int, tally: Tally) -> None:
    """Compare a run that is done with the one that nobody killed."""
    tally.runs += 1
    why = f"it ended with {code}" if code else bench.difference(name)
    if why is not None:
        tally.different.append(f"{bench.way}, {name}: {why}")
    print(f"  {bench.way:16} {name}: {why or 'equal, bit for bit'}", flush=True)
    if why is None:
        shutil.rmtree(bench.run(name))


def newest(run: Path) -> str:
    """The newest checkpoint's name."""
    return max((path.name for path in run.glob("checkpoints/step-*")), default="no checkpoint")


def main() -> None:
    """Kill so many times, and say what came of it; exit code 1 where a run differs."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--times", type=int, default=20)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--torchrun", action="store_true", help="torchrun starts the ranks again")
    asked.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    asked.add_argument("--keep", type=Path, help="a folder that stays")
    given = asked.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    draw, tally, benches = random.Random(given.seed), Tally(), {}
    with tempfile.TemporaryDirectory(prefix="burnish-kills-") as temporary:
        place = given.keep or Path(temporary)
        os.environ["BURNISH_CACHE"] = f"{place}/cache"
        while tally.kills < given.times:
            way = given.ways[tally.runs % len(given.ways)]
            if way not in benches:
                benches[way] = Bench(place / str(len(benches)), way, torchrun=given.torchrun)
                print(f"{way}: {benches[way].seconds:.1f} s when nobody is killed", flush=True)
            go = restart_until_done if given.torchrun else kill_until_done
            go(benches[way], f"run-{tally.runs}", given.times - tally.kills, draw, tally)
    inside = sum(count for kind, count in tally.kinds.items() if "save" in kind)
    ended = "" if given.torchrun else f", the other rank ended after {tally.slowest:.1f} s at most"
    print(
        f"{tally.kills} kills, {inside} of them inside a save, {tally.runs} runs{ended}; "
        f"{len(tally.different)} runs differ"
    )
    for line in tally.different:
        print(line)
    sys.exit(bool(tally.different))


if __name__ == "__main__":
    main()
