"""A token store built by two processes under two host names, each a share, and joined by a third.

    python benchmarks/two_hosts.py [--rows 120000] [--segment 20000] [--data ../shared/data/alpaca/alpaca.jsonl]

Each process is in a UTS namespace of its own (`unshare --uts`), so that it is another host by name; what they share is
the folder of the cache, as machines share a file system. A fourth process builds the same alone, for comparison: the
bytes must be the same. Where namespaces are not permitted it says so and exits 0 without a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from burnish.experiments.million import hashes, write_rows

# A host's whole work: its name, and a share of the check; smaller segments than users have, for smaller data.
HOST = """
import platform, sys
import burnish.data.rows as rows
rows.SEGMENT_ROWS = int(sys.argv.pop(1))
print(platform.node(), flush=True)
from burnish.__main__ import main
main()
"""


def host(name: str, segment: int, cache: Path, words: Sequence[str]) -> subprocess.Popen[str]:
    """`burnish WORDS` on a host of that name."""
    command = [sys.executable, "-c", HOST, str(segment), *words]
    return subprocess.Popen(
        ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh", *command],
        env={**os.environ, "BURNISH_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> list[str]:
    """What a host printed; RuntimeError where it failed."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args}: exit code {process.returncode}")
    return out.splitlines()


def permitted() -> bool:
    """Whether a process may have a host name of its own here."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "--uts", "hostname", "probe"], capture_output=True).returncode == 0


def study(data: Path, place: Path, segment: int, model: str = "marble") -> dict[str, object]:
    """Two hosts with a share each, a third that joins; beside it one that builds alone."""
    recipe = place / "recipe.yaml"
    recipe.write_text(json.dumps({"model": model, "datasets": str(data), "val_set_size": 50}))
    check = ["check", str(recipe)]
    shares = [
        host(name, segment, place / "shared", [*check, "--share", f"{number}/2"])
        for number, name in enumerate(("alpha", "beta"), start=1)
    ]
    said = [ended(process) for process in shares]
    (parts,) = (place / "shared" / "certificates").glob(".parts-*")
    segments = len([path for path in parts.iterdir() if path.is_dir()])
    names = [lines[0] for lines in said]
    names += [ended(host("gamma", segment, place / "shared", check))[0]]
    ended(host("alone", segment, place / "alone", check))
    one, other = (
        hashes(next((place / cache / "certificates").glob("[!.]*"))) for cache in ("shared", "alone")
    )
    same = sum(one.get(name) == value for name, value in other.items())
    return {
        "hosts": names,
        "segments": segments,
        "identical_files": f"{same} of {len(other)}",
        "identical": one == other,
    }


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--segment", type=int, default=20_000)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca" / "alpaca.jsonl",
    )
    given = parser.parse_args()
    if not permitted():
        print("a host name of one's own is not permitted here: no figure")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_rows(given.data, place / "rows.jsonl", given.rows)
        print(json.dumps({"rows": given.rows, **study(place / "rows.jsonl", place, given.segment)}))


if __name__ == "__main__":
    main()
