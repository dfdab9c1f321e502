"""`burnish runs`: the runs in a folder, newest first, read from their files alone."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
import yaml

from burnish.cli.output import Output
from burnish.errors import UsageError

TAIL_BYTES = 65_536
COLUMNS = ("run", "model", "adapter", "steps", "train loss", "eval loss", "state", "age")


def command(
    directory: Annotated[Path, typer.Argument(help="Folder that holds run directories.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each run.")] = False,
) -> None:
    """List the runs in a folder: model, steps, losses, state."""
    output = Output(as_json=as_json)
    if not directory.is_dir():
        raise UsageError(
            f"{directory}: no such folder",
            rule="runs are listed from the folder that holds them, by default runs/",
            remedy="name it, as in `burnish runs experiments/runs`, or train something first",
        )
    runs = sorted(find_runs(directory), key=lambda run: run["age_seconds"])
    for run in runs:
        output.emit(run)
    if not as_json and runs:
        output.table(COLUMNS, [_cells(run) for run in runs])
    if not runs:
        output.say(f"no runs in {directory}")


def find_runs(directory: Path) -> Iterator[dict[str, Any]]:
    """Every run directory below a folder, as a flat row; damaged files count as empty."""
    for path in sorted(directory.iterdir()):
        if (path / "resolved.yaml").is_file():
            yield describe_run(path)


def describe_run(path: Path) -> dict[str, Any]:
    """One run as a flat row."""
    recipe = _read_yaml(path / "resolved.yaml")
    lines = list(_last_lines(path / "metrics.jsonl"))
    summary = _parse((path / "summary.json").read_bytes()) if (path / "summary.json").is_file() else {}
    trained = _last(lines, "train")
    return {
        "run": path.name,
        "path": str(path),
        "model": recipe.get("model"),
        "adapter": recipe.get("adapter"),
        "steps": summary.get("steps", trained.get("step", 0)),
        "num_steps": trained.get("num_steps"),
        "train_loss": summary.get("train_loss", trained.get("loss")),
        "eval_loss": summary.get("eval_loss", _last(lines, "eval").get("loss")),
        "best_eval_loss": summary.get("best_eval_loss"),
        "stopped_by": summary.get("stopped_by"),
        "state": _state(path, summary),
        "age_seconds": round(time.time() - _last_touched(path)),
    }


def _state(path: Path, summary: dict[str, Any]) -> str:
    """`running` while a process holds the lock; else `finished` with a summary, `interrupted` without one."""
    if _is_locked(path / ".lock"):
        return "running"
    return "finished" if summary and summary.get("stopped_by") != "interrupted" else "interrupted"


def _is_locked(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _last_touched(path: Path) -> float:
    files = [path / name for name in ("resolved.yaml", "metrics.jsonl", "summary.json")]
    return max(file.stat().st_mtime for file in files if file.is_file())


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        value = None
    return value if isinstance(value, dict) else {}


def _last_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines in the last part of a file: a run's latest numbers, however long it is."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        for line in file.read().split(b"\n"):
            yield _parse(line)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _last(lines: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next((line for line in reversed(lines) if line.get("kind") == kind), {})


def _cells(run: dict[str, Any]) -> tuple[str, ...]:
    steps = (
        str(run["steps"])
        if run["num_steps"] in (None, run["steps"])
        else f"{run['steps']}/{run['num_steps']}"
    )
    losses = [
        f"{run[key]:.4f}" if isinstance(run[key], float) else "-" for key in ("train_loss", "eval_loss")
    ]
    names = [str(run[key] or "-") for key in ("run", "model", "adapter")]
    return (*names, steps, *losses, run["state"], _age(run["age_seconds"]))


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
