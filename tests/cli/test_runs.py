"""Runs are listed from their files alone, whatever state those are in."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest


def make_run(path: Path, *, summary: dict[str, Any] | None = None, metrics: str = "", age: int = 0) -> Path:
    path.mkdir(parents=True)
    (path / "resolved.yaml").write_text("model: marble   # train.yaml:1\nadapter: lora\n")
    (path / "metrics.jsonl").write_text(metrics)
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary))
    for file in path.iterdir():
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - age))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    done = {"steps": 9, "train_loss": 1.25, "eval_loss": 1.5, "best_eval_loss": 1.4, "stopped_by": "finished"}
    make_run(tmp_path / "runs" / "done", summary=done, age=7200)
    half = '{"kind":"train","step":3,"num_steps":9,"loss":2.0}\n{"kind":"eval","step":3,"loss":2.5}\n{"ki'
    make_run(tmp_path / "runs" / "half", metrics=half, age=60)
    (tmp_path / "runs" / "not-a-run").mkdir()
    return tmp_path / "runs"


def rows(ran_out: str) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in map(json.loads, ran_out.splitlines())}


def test_a_finished_run_is_told_by_its_summary_and_a_cut_one_by_its_metrics(
    burnish: Any, folder: Path
) -> None:
    found = rows(burnish("runs", "--json").out)
    assert list(found) == ["half", "done"]
    assert (found["done"]["state"], found["done"]["steps"], found["done"]["eval_loss"]) == (
        "finished",
        9,
        1.5,
    )
    assert (found["half"]["state"], found["half"]["steps"], found["half"]["eval_loss"]) == (
        "interrupted",
        3,
        2.5,
    )
    assert found["half"]["adapter"] == "lora"


def test_a_run_whose_lock_is_held_is_running(burnish: Any, folder: Path) -> None:
    with (folder / "half" / ".lock").open("w") as lock:
        assert rows(burnish("runs", "--json").out)["half"]["state"] == "interrupted"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert rows(burnish("runs", "--json").out)["half"]["state"] == "running"


def test_people_get_a_table(burnish: Any, folder: Path) -> None:
    out = burnish("runs", str(folder)).out
    assert "3/9" in out
    assert "2 h" in out
    assert "marble" in out


def test_damaged_files_and_odd_names_do_not_stop_the_list(burnish: Any, folder: Path) -> None:
    run = make_run(folder / "[red]\x1b[31m", metrics="\x00\n[1]\n")
    (run / "resolved.yaml").write_bytes(b"\xff: [")
    (run / "summary.json").write_text("[")
    ran = burnish("runs")
    assert ran.code == 0
    assert "\x1b[31m" not in ran.out
    assert "[red]" in ran.out


def test_no_runs_is_said_and_no_folder_is_an_error(burnish: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no runs" in burnish("runs", str(tmp_path / "empty")).out
    assert burnish("runs", str(tmp_path / "nope")).code == 2
