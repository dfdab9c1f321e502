"""`evals.json`: what was measured of a run, each evaluation appended, and evaluations of several runs side by side.

{"version": 1, "evaluations": [{"model": "tuned", "path": "runs/a/final", "step": 412, "date": "...",
  "dataset": "held-out", "rows": 200, "metrics": {"exact_match": {"value": 0.62, "low": 0.55, ...}},
  "by_source": {...}, "contamination": {"rows": 0, "of": 200, "ngram": 13}, "samples": [...]}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from burnish.errors import DataError
from burnish.evaluation.contamination import Contamination
from burnish.evaluation.figures import Difference, Figure
from burnish.training.directory import RunDirectory, open_run

FILE = "evals.json"
SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model on one set."""

    model: str
    path: str
    step: int | None
    date: str
    dataset: str
    rows: int
    metrics: Mapping[str, Figure]
    by_source: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    contamination: Contamination | None = None
    samples: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    against_base: Mapping[str, Difference] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "model": self.model,
            "path": self.path,
            "step": self.step,
            "date": self.date,
            "dataset": self.dataset,
            "rows": self.rows,
            "metrics": {name: figure.as_dict() for name, figure in self.metrics.items()},
            "by_source": {
                source: {name: figure.as_dict() for name, figure in figures.items()}
                for source, figures in self.by_source.items()
            },
            "contamination": self.contamination and self.contamination.as_dict(),
            "samples": list(self.samples)[:SAMPLES],
            "notes": list(self.notes),
            "against_base": {name: asdict(found) for name, found in self.against_base.items()},
        }


def append(run: RunDirectory, evaluations: Sequence[Evaluation]) -> None:
    """Add evaluations to the run's file, which is there whole whatever happens."""
    with run.locked():
        known = read_evaluations(run.path)
        run.write(FILE, {"version": 1, "evaluations": [*known, *(one.as_dict() for one in evaluations)]})


def read_evaluations(run: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, oldest first; none where the file is not there, DataError where it is damaged."""
    path = run / FILE
    if not path.is_file():
        return []
    try:
        found = orjson.loads(path.read_bytes())["evaluations"]
        for one in found:
            one["metrics"].items(), one["dataset"].lower(), one["model"].lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: {type(error).__name__}: {error}",
            rule="evals.json is an object with a list of evaluations, as `burnish eval` writes it",
            remedy=f"restore the file, or move it away: mv {path} {path}.old",
        ) from error
    return list(found)


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric on one set, in the newest evaluation of every run; `clear` where the best beats all others."""

    dataset: str
    metric: str
    cells: tuple[dict[str, Any] | None, ...]
    best: int | None
    clear: bool
    same_rows: bool


def compare_runs(paths: Sequence[str]) -> tuple[list[str], list[Compared]]:
    """The columns (run, and base where it was measured) and the rows of a comparison of runs."""
    columns: list[str] = []
    newest: list[dict[str, dict[str, Any]]] = []
    for path in paths:
        run = open_run(path)
        by_model: dict[str, dict[str, dict[str, Any]]] = {}
        for one in read_evaluations(run.path):
            by_model.setdefault(one["model"], {})[one["dataset"]] = one
        for model, found in sorted(by_model.items()):
            columns.append(run.path.name if model == "tuned" else f"{run.path.name} ({model})")
            newest.append(found)
    if not columns:
        raise DataError(
            f"{', '.join(paths)}: no evaluations",
            rule="runs are compared by what `burnish eval` wrote to their evals.json",
            remedy=f"burnish eval {paths[0]}" if paths else "burnish eval RUN",
        )
    names = dict.fromkeys((d, m) for found in newest for d, one in found.items() for m in one["metrics"])
    return columns, [_compared(newest, dataset, metric) for dataset, metric in names]


def _compared(newest: list[dict[str, dict[str, Any]]], dataset: str, metric: str) -> Compared:
    cells = tuple(found.get(dataset, {}).get("metrics", {}).get(metric) for found in newest)
    there = [k for k, cell in enumerate(cells) if cell and cell.get("value") is not None]
    rows = {newest[k][dataset]["rows"] for k in there}
    if len(there) < 2 or metric.partition("@")[0] == "answer_tokens":
        return Compared(dataset, metric, cells, None, False, len(rows) <= 1)
    sign = 1 if cells[there[0]]["higher_is_better"] else -1
    best = max(there, key=lambda k: sign * cells[k]["value"])
    clear = all(k == best or _apart(cells[best], cells[k], sign) for k in there)
    return Compared(dataset, metric, cells, best, clear, len(rows) <= 1)


def _apart(best: dict[str, Any] | None, other: dict[str, Any] | None, sign: int) -> bool:
    """Whether the intervals do not touch: a cautious word, for paired rows may tell more."""
    if (
        not best
        or not other
        or any(one.get(side) is None for one in (best, other) for side in ("low", "high"))
    ):
        return False
    return bool(best["low"] > other["high"] if sign > 0 else best["high"] < other["low"])
