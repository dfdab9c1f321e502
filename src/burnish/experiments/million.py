"""A million rows as long as Alpaca's: the store built, the plan made, the first batch served; also, a build killed.

    python -m burnish.experiments.million ../shared/data/alpaca/alpaca.jsonl --work DIR         the last line is JSON
    python -m burnish.experiments.million ../shared/data/alpaca/alpaca.jsonl --work DIR --rows 200000 --kills 4

A synthetic row is a real one with its words in another order and a number. The build runs in a process of its own; its
memory is that of the process and all its children, shared pages counted once (PSS), looked at twice a second. With
`--kills` a second build is killed, whole process group, at random moments and started again; its files are compared
with the first one's, byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from burnish.experiments.entry import enter

EXTRAPOLATED = 15_000_000
LOOK_SECONDS = 0.5
STORED = ("train", "held_out", "ledger.jsonl", "origins.json")
"""What the killed build must equal; the certificate beside it says how long the build took."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A build that ended: what it printed, its seconds by the clock and of processors, the most memory seen, in MB."""

    told: dict[str, Any]
    seconds: float
    processor_seconds: float
    peak_mb: float
    peak_anonymous_mb: float


def write_rows(real: Path, out: Path, number: int) -> None:
    """Real rows with their words shuffled, numbered so that no two are the same."""
    rows = [orjson.loads(line) for line in real.read_bytes().split(b"\n") if line]
    rows = [row for row in rows if row["output"].strip()]
    draw = random.Random(0)
    with out.open("wb") as file:
        for k in range(number):
            row = rows[draw.randrange(len(rows))]
            said = {key: row.get(key, "").split(" ") for key in ("instruction", "input", "output")}
            for words in said.values():
                draw.shuffle(words)
            said["instruction"].append(f"({k})")
            file.write(orjson.dumps({key: " ".join(words) for key, words in said.items()}) + b"\n")


def serve(data: Path, model: str) -> dict[str, Any]:
    """Build the store or open it, make the plan, lay out the first batch."""
    from burnish.data.pack import pack_all
    from burnish.recipe.load import load_recipe
    from burnish.training.stages import ready

    started = time.monotonic()
    keys = {"model": model, "datasets": str(data), "val_set_size": 1000, "max_length": 1024}
    readied = ready(load_recipe(None, keys).recipe)
    built = time.monotonic()
    (stage,) = readied.stages
    rows = stage.plan.rows_of(0)
    packs = pack_all([view for row in rows for view in readied.data.train[row]], max_tokens=4096)
    (certified,) = readied.certified
    return {
        "rows": certified.certificate.rows,
        "tokens": certified.certificate.tokens,
        "reused": certified.reused,
        "place": str(certified.path.parent),
        "updates": stage.plan.num_steps,
        "first_batch": {"rows": len(rows), "packs": len(packs), "tokens": sum(map(len, packs))},
        "seconds_to_store": round(built - started, 2),
        "seconds_to_first_batch_from_store": round(time.monotonic() - built, 2),
    }


def start(data: Path, model: str, cache: Path) -> subprocess.Popen[bytes]:
    """`serve` in a process group of its own, with a cache of its own."""
    command = [sys.executable, "-m", "burnish.experiments.million", str(data), "--serve", model]
    environment = {**os.environ, "BURNISH_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)


def watch(process: subprocess.Popen[bytes]) -> Watched:
    """Wait for a build, looking at its memory."""
    started, peak, anonymous = time.monotonic(), 0.0, 0.0
    processors: dict[int, float] = {}
    while process.poll() is None:
        members = [*family(process.pid)]
        processors |= {number: spent for number in members if (spent := seconds_of(number))}
        seen = [memory_of(number) for number in members]
        peak = max(peak, sum(each[0] for each in seen))
        anonymous = max(anonymous, sum(each[1] for each in seen))
        time.sleep(LOOK_SECONDS)
    if process.returncode:
        raise RuntimeError(f"the build ended with {process.returncode}")
    assert process.stdout is not None
    told = orjson.loads(process.stdout.read().splitlines()[-1])
    seconds, spent = time.monotonic() - started, sum(processors.values())
    return Watched(told, *(round(value, 1) for value in (seconds, spent, peak, anonymous)))


def family(process: int) -> Iterator[int]:
    """A process and all below it."""
    yield process
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = tasks.read_text().split()
        except OSError:  # gone since
            continue
        for child in children:
            yield from family(int(child))


def memory_of(process: int) -> tuple[float, float]:
    """A process's share of its resident pages, and those of it that no file backs, in MB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    found = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return float(found["Pss"]) / 1024, float(found["Pss_Anon"]) / 1024


def seconds_of(process: int) -> float:
    """The processor time of a process so far; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hashes(place: Path) -> dict[str, str]:
    """The SHA-256 of every stored file."""
    files = sorted(
        path for name in STORED for path in [place / name, *(place / name).glob("*")] if path.is_file()
    )
    return {
        str(path.relative_to(place)): hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
        for path in files
    }


def killed_build(
    data: Path, model: str, cache: Path, *, kills: int, seconds: float, seed: int
) -> tuple[dict[str, str], list[float]]:
    """Build, kill it after random times shorter than a build takes, so often; then let it end."""
    draw = random.Random(seed)
    after: list[float] = []
    while len(after) < kills:
        process = start(data, model, cache)
        after.append(round(draw.uniform(0.05, 0.9) * seconds, 2))
        try:
            process.wait(after[-1])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            continue
        after[-1] = -after[-1]  # it was done before: nothing is left to kill
        break
    ended = watch(start(data, model, cache))
    return hashes(Path(ended.told["place"])), after


def study(real: Path, work: Path, model: str, *, rows: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """Write the rows, build and serve, serve again from the store; then the build that is killed."""
    work.mkdir(parents=True, exist_ok=True)
    data = work / f"rows-{rows}.jsonl"
    if not data.exists():
        write_rows(real, data.with_suffix(".part"), rows)
        data.with_suffix(".part").rename(data)
    for name in ("whole", "killed"):
        shutil.rmtree(work / name, ignore_errors=True)
    built = watch(start(data, model, work / "whole"))
    again = watch(start(data, model, work / "whole"))
    place = Path(built.told["place"])
    found = {
        "rows": rows,
        "bytes_of_data": data.stat().st_size,
        "bytes_of_store": sum(path.stat().st_size for path in place.rglob("*") if path.is_file()),
        "cores": len(os.sched_getaffinity(0)),
        "build": _as_dict(built),
        "rows_per_second": round(rows / built.told["seconds_to_store"]),
        "rows_per_processor_second": round(rows / built.processor_seconds),
        f"processor_hours_for_{EXTRAPOLATED:,}_rows": round(
            EXTRAPOLATED / rows * built.processor_seconds / 3600, 2
        ),
        f"hours_for_{EXTRAPOLATED:,}_rows": round(
            EXTRAPOLATED / rows * built.told["seconds_to_store"] / 3600, 2
        ),
        "from_the_store": _as_dict(again),
    }
    if kills:
        expected = hashes(place)
        got, after = killed_build(data, model, work / "killed", kills=kills, seconds=built.seconds, seed=seed)
        found["killed_after_seconds"] = after
        found["identical_files"] = f"{sum(got.get(n) == h for n, h in expected.items())} of {len(expected)}"
        found["identical"] = got == expected
    return found


def _as_dict(watched: Watched) -> dict[str, Any]:
    told = {key: value for key, value in watched.told.items() if key != "place"}
    return {**told, **{key: value for key, value in asdict(watched).items() if key != "told"}}


def main(words: Sequence[str] | None = None) -> None:
    """Run the study and print it; with --serve, be the process that is watched."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="real rows in Alpaca's format")
    parser.add_argument("--work", type=Path, help="folder for rows and stores; some GB for a million rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--model", default="marble")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.serve:
        result = serve(given.data, given.serve)
    else:
        if given.work is None:
            parser.error("--work DIR")
        result = study(given.data, given.work, given.model, rows=given.rows, kills=given.kills)
    print(orjson.dumps(result).decode())


if __name__ == "__main__":
    enter(main)
