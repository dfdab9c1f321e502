"""A run directory as the report sees it: every file that is there, and a note on each that cannot be read.

    run = collect(Path("runs/demo"))
    run.steps[0]["loss"]        2.1086          run.notes        ["metrics.jsonl: 1 line cannot be read ..."]

Only a directory that is no run at all is an error; a file that is missing leaves its part of the report out.
"""

from __future__ import annotations

import fcntl
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from burnish.errors import UsageError
from burnish.report.values import mapping, mappings, number, text

LARGEST_FILE = 256 * 2**20
_ORIGIN = re.compile(r"^(\w+):.*\s# (.+)$")


@dataclass
class Run:
    """What the files of one run say, unchecked; `notes` tells which of them could not be read, and why."""

    path: Path
    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    recipe_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    merge: Any = None
    certificates: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    sharpening: list[dict[str, Any]] = field(default_factory=list)
    forgetting: list[dict[str, Any]] = field(default_factory=list)
    state: str = "unknown"
    notes: list[str] = field(default_factory=list)

    @property
    def num_steps(self) -> int:
        """The last update that was written down."""
        found = [number(step.get("step")) for step in self.steps] + [number(self.summary.get("steps"))]
        return int(max((each for each in found if each is not None), default=0))

    @property
    def model(self) -> str:
        """The model that training began with."""
        return text(self.recipe.get("model"), "a model")

    def sources(self) -> dict[str, str]:
        """Names of the held-out sources by the number that metrics have them under."""
        return {key: text(name) for key, name in mapping(self.plan.get("held_out_sources")).items()}


def collect(path: Path) -> Run:
    """Read a run directory; UsageError where there is none."""
    if not path.is_dir() or not any((path / name).is_file() for name in ("resolved.yaml", "metrics.jsonl")):
        raise UsageError(
            f"{path} is not a run directory: it has neither resolved.yaml nor metrics.jsonl",
            rule="a report is made of what `burnish train` writes, by default below runs/",
            remedy="list the runs there are: burnish runs",
        )
    run = Run(path, path.resolve().name)
    _read_recipe(run)
    run.environment = mapping(read_json(run, "environment.json"))
    run.recipe = run.recipe or mapping(run.environment.get("recipe"))
    run.plan = mapping(read_json(run, "plan.json"))
    run.summary = mapping(read_json(run, "summary.json"))
    run.merge = read_json(run, "merge.json")
    run.evaluations = mappings(mapping(read_json(run, "evals.json")).get("evaluations"))
    stages = sorted(found.name for found in path.glob("certificate-*.json")) or ["certificate.json"]
    run.certificates = [found for found in (mapping(read_json(run, name)) for name in stages) if found]
    metrics = read_lines(run, "metrics.jsonl")
    run.steps = [line for line in metrics if line.get("kind") == "train"]
    run.evals = [line for line in metrics if line.get("kind") == "eval"]
    run.ledger = read_lines(run, "ledger.jsonl")
    run.samples = read_lines(run, "samples.jsonl")
    run.events = read_lines(run, "events.jsonl")
    run.sharpening = read_lines(run, "sharpening.jsonl")
    run.forgetting = read_lines(run, "forgetting.jsonl")
    run.state = _state(run)
    return run


def read_json(run: Run, name: str) -> Any:
    """A JSON file of the run; None where it is not there, None and a note where it is damaged."""
    raw = _bytes(run, name)
    if raw is None:
        return None
    try:
        return orjson.loads(raw)
    except ValueError as error:
        run.notes.append(f"{name} is damaged ({error}): what it holds is left out.")
        return None


def read_lines(run: Run, name: str) -> list[dict[str, Any]]:
    """The mappings in a JSONL file; a last line without an end is being written, any other bad one is noted."""
    raw = _bytes(run, name)
    if not raw:
        return []
    *whole, _ = raw.split(b"\n")
    found, bad = [], []
    for place, line in enumerate(whole, start=1):
        try:
            value = orjson.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            bad.append(place)
    if bad:
        many = f"{len(bad)} lines cannot be read (the first is line {bad[0]}) and are left out."
        one = f"line {bad[0]} cannot be read and is left out."
        run.notes.append(f"{name}: {one if len(bad) == 1 else many}")
    return found


def _bytes(run: Run, name: str) -> bytes | None:
    path = run.path / name
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > LARGEST_FILE:
            run.notes.append(f"{name} is larger than {LARGEST_FILE >> 20} MiB and was not read.")
            return None
        return path.read_bytes()
    except OSError as error:
        run.notes.append(f"{name} cannot be read ({error.strerror}).")
        return None


def _read_recipe(run: Run) -> None:
    raw = _bytes(run, "resolved.yaml")
    if raw is None:
        return
    run.recipe_text = raw.decode(errors="replace")
    try:
        run.recipe = mapping(yaml.safe_load(run.recipe_text))
    except (yaml.YAMLError, ValueError, RecursionError):
        run.notes.append("resolved.yaml is damaged: the recipe is told from environment.json.")
    for line in run.recipe_text.splitlines():
        if found := _ORIGIN.match(line):
            run.origins[found[1]] = found[2]


def _state(run: Run) -> str:
    """`running` while a process holds the lock; else `finished` with a summary, `interrupted` without one."""
    try:
        with (run.path / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    except OSError:
        pass
    return text(run.summary.get("stopped_by"), "interrupted")
