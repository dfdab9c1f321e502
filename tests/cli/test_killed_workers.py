"""Real commands whose data workers are killed from outside, as a system that runs out of memory does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROWS = 4_500
SIDES = ("train", "held_out")
"""Folders with what was encoded."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc"),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Marble and enough rows for two workers."""
    place = tmp_path_factory.mktemp("killed")
    with (place / "rows.jsonl").open("w") as file:
        for k in range(ROWS):
            said = [
                {"role": "user", "content": f"What of {k}?"},
                {"role": "assistant", "content": f"{k} is {k}."},
            ]
            file.write(json.dumps({"messages": said}) + "\n")
    (place / "recipe.yaml").write_text(
        f"model: marble\ndatasets:\n  - path: {place / 'rows.jsonl'}\noutput_dir: {place / 'runs'}\nnum_epochs: 1\n"
    )
    return place / "recipe.yaml"


def children_of(pid: int) -> set[int]:
    """The processes that render and encode for a command."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.update(int(child) for child in task.read_text().split())
        except OSError:  # the thread, or all of it, has ended meanwhile
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def processor_seconds(pid: int) -> float:
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def killed_while_it_runs(
    command: str, recipe: Path, cache: Path, *, most: int, after: float
) -> tuple[int, str, str, int]:
    """Run a command and kill so many of its workers, each once it has computed for `after` seconds.

    Its exit code, what it printed on both ways, and how many were killed.
    """
    environment = {**os.environ, "BURNISH_CACHE": str(cache)}
    process = subprocess.Popen(
        [sys.executable, "-m", "burnish", command, str(recipe), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    seen, killed = set[int](), set[int]()
    until = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < until:
        found = children_of(process.pid)
        seen |= found
        for child in found - killed:
            if len(killed) < most and processor_seconds(child) >= after:
                killed.add(child)
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    hung = process.poll() is None
    process.kill() if hung else None
    out, err = process.communicate()
    assert not hung, "it neither ended nor failed"
    assert not [child for child in seen if is_alive(child)], "a worker outlived its command"
    return process.returncode, out, err, len(killed)


@pytest.mark.parametrize("command", ["check", "train"])
def test_workers_that_are_killed_again_and_again_fail_the_command_in_words(
    command: str, recipe: Path, tmp_path: Path
) -> None:
    code, out, err, kills = killed_while_it_runs(command, recipe, tmp_path, most=10**9, after=0.0)
    assert code == 1 and kills >= 2, err
    said = json.loads(out.splitlines()[-1])
    assert "ended by signal 9" in said["saw"] and "dmesg" in said["remedy"]
    assert "Traceback" not in err


@pytest.mark.parametrize("after", [0.0, 0.4], ids=["young", "at work"])
def test_a_worker_that_is_killed_costs_no_row(after: float, recipe: Path, tmp_path: Path) -> None:
    plain = killed_while_it_runs("check", recipe, tmp_path / "plain", most=0, after=0.0)
    killed = killed_while_it_runs("check", recipe, tmp_path / "killed", most=1, after=after)
    assert (plain[0], killed[0], plain[3], killed[3]) == (0, 0, 0, 1), killed
    stores = [
        {path.name: path.read_bytes() for path in (tmp_path / kind).rglob("*") if path.parent.name in SIDES}
        for kind in ("plain", "killed")
    ]
    assert stores[0] and stores[0] == stores[1]
