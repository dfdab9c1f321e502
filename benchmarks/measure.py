"""Run one command and watch it from outside: when each step ended, how much memory it held, who else was busy.

burnish and the peers are watched alike, through the lines that they append to RUN/events.jsonl and RUN/metrics.jsonl.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

POLL = 0.005
TICKS = os.sysconf("SC_CLK_TCK")


class RunFailed(RuntimeError):
    """An arm ended with an error; its last words are in the message."""


@dataclass(slots=True)
class Watched:
    """One process from launch to exit; times in seconds since its launch, memory in bytes."""

    ready: float = 0.0
    ends: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    peak: int = 0
    peak_in_training: int = 0
    whole: float = 0.0
    others: float = 0.0

    def seconds(self, first: int = 1, last: int | None = None) -> float:
        """From the end of step `first` to the end of step `last`; `first=0` begins when training does."""
        start = self.ready if first == 0 else self.ends[first - 1]
        return self.ends[-1 if last is None else last - 1] - start


def watch(
    command: Sequence[str], run: Path, *, log: Path, env: dict[str, str] | None = None, timeout: float = 1800
) -> Watched:
    """Run to the end; RunFailed where it does not get there."""
    seen = Watched()
    busy = machine_seconds()
    launched = time.perf_counter()
    with log.open("wb") as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, env=env)
        try:
            status, usage = _follow(process.pid, run, seen, launched, timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    seen.whole = time.perf_counter() - launched
    seen.peak = usage.ru_maxrss * 1024
    own = usage.ru_utime + usage.ru_stime
    seen.others = max(0.0, machine_seconds() - busy - own) / (seen.whole * (os.cpu_count() or 1))
    if process.returncode or not seen.ends:
        raise RunFailed(
            f"{' '.join(command)}: exit {process.returncode}\n{log.read_text(errors='replace')[-1500:]}"
        )
    return seen


def _follow(
    pid: int, run: Path, seen: Watched, launched: float, timeout: float
) -> tuple[int, resource.struct_rusage]:
    events, metrics = run / "events.jsonl", run / "metrics.jsonl"
    offset = 0
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        now = time.perf_counter() - launched
        if not seen.ready and events.exists() and events.stat().st_size:
            seen.ready = now
        if metrics.exists() and metrics.stat().st_size > offset:
            with metrics.open("rb") as file:
                file.seek(offset)
                whole = file.read().rpartition(b"\n")[0]
            offset += len(whole) + 1 if whole else 0
            for line in whole.splitlines():
                _take(json.loads(line), seen, now, pid)
        if ended:
            return status, usage
        if now > timeout:
            raise RunFailed(f"not done after {timeout:.0f} s")
        time.sleep(POLL)


def _take(line: dict[str, float | str], seen: Watched, now: float, pid: int) -> None:
    if line.get("kind") != "train":
        return
    seen.ends.append(now)
    seen.losses.append(float(line["loss"]))
    memory = process_memory(pid)
    seen.resident.append(memory.get("VmRSS", 0))
    seen.peak_in_training = max(seen.peak_in_training, memory.get("VmHWM", 0))


def process_memory(pid: int) -> dict[str, int]:
    """VmRSS and VmHWM in bytes; empty once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith(("VmRSS", "VmHWM")))
    return {name.rstrip(":"): int(size) * 1024 for name, size, *_ in fields}


def machine_seconds() -> float:
    """CPU seconds that the whole machine has spent on anything but idling."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS
