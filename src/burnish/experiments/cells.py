"""The cells of a curve: each is one training on one subset and what it scored; finished ones are never trained again.

    CURVE/settings.json                     what is asked; a folder holds the cells of one question
    CURVE/pool/                             the rows (see `subsets`)
    CURVE/cells/rows-300-epochs-4-seed-0.json      one number for each held-out row
    CURVE/runs/rows-300-epochs-4-seed-0/    the run while it lasts: killed, it goes on from its last checkpoint

A worker walks down the list and takes what no other holds: locks are the system's, so a killed worker holds nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import orjson

from burnish.checkpoint.place import discard
from burnish.data.rows import read_rows
from burnish.errors import DataError, UsageError
from burnish.experiments.asking import METRICS, outcomes
from burnish.experiments.entry import enter
from burnish.experiments.subsets import subset
from burnish.experiments.whole import uninterrupted
from burnish.models.assistant import Assistant, load_assistant
from burnish.models.load import add_token_rows, default_device, load_model
from burnish.models.tokenizer import load_chat_tokenizer
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe
from burnish.training.run import resume, train
from burnish.types import Row

EPOCHS, STEPS = "epochs", "steps"
RULES = (EPOCHS, STEPS)
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: so many rows, so many epochs or updates, a seed; `halved` is a source that gives half its rows."""

    rows: int
    rule: str
    length: int
    seed: int
    halved: int | None = None

    @property
    def name(self) -> str:
        """The name of its files."""
        part = "" if self.halved is None else f"-half-{self.halved}"
        return f"rows-{self.rows}-{self.rule}-{self.length}{part}-seed-{self.seed}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a folder's cells have in common: the recipe without its data, the metric, and the data by its hash."""

    recipe: dict[str, Any]
    sources: list[dict[str, Any]]
    metric: str
    max_new_tokens: int | None
    held_out: list[dict[str, Any]]
    data: str

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Those of a folder."""
        return cls(**orjson.loads((folder / "settings.json").read_bytes()))

    def keep(self, folder: Path) -> None:
        """Write them; UsageError where the folder answers another question."""
        said = {key: getattr(self, key) for key in ("recipe", "metric", "max_new_tokens", "data")}
        more = {key: getattr(self, key) for key in ("sources", "held_out")}
        keep_question(folder, said, **more)


def keep_question(folder: Path, said: Mapping[str, Any], **more: Any) -> None:
    """Write settings.json; UsageError where the folder's cells answer another question. `more` may change."""
    path = folder / "settings.json"
    now = orjson.loads(orjson.dumps(said))
    before = orjson.loads(path.read_bytes()) if path.exists() else now
    other = [
        f"{key}: {_differences(before.get(key), now[key])}" for key in now if before.get(key) != now[key]
    ]
    if other:
        raise UsageError(
            f"{folder} holds cells of another question ({'; '.join(other)[:300]})",
            rule="the cells of a folder are comparable: one recipe, one data set, one metric",
            remedy="give this one a folder of its own: --out DIR, or delete the old one",
        )
    write_json(path, {**said, **more})


def _differences(before: Any, now: Any) -> str:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{before!r} -> {now!r}"
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in changed)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file; it is there whole or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n")
    draft.replace(path)


def result_of(folder: Path, name: str) -> dict[str, Any] | None:
    """What a cell came to, or None."""
    path = folder / "cells" / f"{name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = orjson.loads(path.read_bytes())
    return found


def work(folder: Path, cells: Sequence[Cell], tell: Told) -> int:
    """Train and score the cells that nobody else holds; returns how many this process did."""
    settings = Settings.read(folder)
    done = 0
    for cell in cells:
        if result_of(folder, cell.name) is not None:
            continue
        with claimed(folder / "cells" / f".{cell.name}.lock") as mine:
            if mine and result_of(folder, cell.name) is None:
                scored = run_cell(folder, cell, settings)
                done += 1
                mean = sum(scored) / len(scored)
                tell(f"{cell.name}: {METRICS[settings.metric].words(mean)}")
    return done


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Whether this process holds the lock within the block."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run_cell(folder: Path, cell: Cell, settings: Settings) -> list[float]:
    """Train a cell, or go on with it, ask the model, keep the answer, and let the model go."""
    run = folder / "runs" / cell.name
    if (run / "resolved.yaml").is_file():
        result = resume(run)
    else:
        if run.exists():
            discard(run)
        result = train(load_recipe(None, recipe_of_cell(folder, cell, settings)))
    uninterrupted(result)
    scored = _scored(folder, load_assistant(str(run)), settings)
    write_json(
        folder / "cells" / f"{cell.name}.json",
        {
            "rows": cell.rows, "rule": cell.rule, "length": cell.length, "seed": cell.seed, "halved": cell.halved,
            "updates": result.steps, "rows_used": result.rows["used"], "graded_tokens": result.graded_tokens,
            "train_loss": result.train_loss, "outcomes": scored,
        },
    )  # fmt: skip
    discard(run)
    return scored


def recipe_of_cell(folder: Path, cell: Cell, settings: Settings) -> dict[str, Any]:
    """The recipe of a cell: the user's, on a subset, for so many epochs or updates, with nothing held out."""
    seed = folder / "pool" / f"seed-{cell.seed}"
    length = {"num_epochs": cell.length} if cell.rule == EPOCHS else {"max_steps": cell.length}
    saved = {"save_steps": max(20, cell.length // 4)} if cell.rule == STEPS else {"save_steps": 60}
    return {
        **settings.recipe,
        **saved,
        **length,
        "datasets": subset(settings.sources, seed, cell.rows, halved=cell.halved),
        "seed": cell.seed,
        "output_dir": str(folder / "runs"),
        "run_name": cell.name,
    }


def score_base(folder: Path, settings: Settings, tell: Told) -> list[float]:
    """What the base scores: zero rows."""
    found = result_of(folder, "base")
    if found is None:
        model, template = settings.recipe["model"], settings.recipe.get("chat_template")
        if settings.metric == "loss":
            base = starting_assistant(model, chat_template=template)
        else:
            base = load_assistant(model, chat_template=template)
        found = {"rows": 0, "outcomes": _scored(folder, base, settings)}
        write_json(folder / "cells" / "base.json", found)
        mean = sum(found["outcomes"]) / len(found["outcomes"])
        tell(f"base: {METRICS[settings.metric].words(mean)}")
    scored: list[float] = found["outcomes"]
    return scored


def starting_assistant(model: str, *, chat_template: str | None = None) -> Assistant:
    """The base as training starts it: with its template's tokens, which it was never trained on."""
    tokenizer = load_chat_tokenizer(model, chat_template=chat_template)
    weights = load_model(model)
    add_token_rows(weights, len(tokenizer), tokenizer.new_ids, like=tokenizer.like)
    return Assistant(model, weights.to(default_device()).eval(), tokenizer, tuple(tokenizer.stop_ids))


def held_out_rows(folder: Path, settings: Settings) -> list[Row]:
    """What every cell is asked, in one order; `settings.held_out` says of which source each row is."""
    sources = [{"path": str(folder / each["path"]), "format": each["format"]} for each in settings.held_out]
    return read_rows(load_recipe(None, {"model": settings.recipe["model"], "datasets": sources}).recipe).train


def _scored(folder: Path, assistant: Assistant, settings: Settings) -> list[float]:
    rows = held_out_rows(folder, settings)
    metric = METRICS[settings.metric]
    found = outcomes(assistant, rows, metric, max_new_tokens=settings.max_new_tokens)
    if not found:
        raise DataError(
            "no held-out row was scored",
            rule="a cell is measured on the recipe's held-out rows",
            remedy="look at them: burnish check RECIPE",
        )
    return found


def main() -> None:
    """A worker of its own: `python -m burnish.experiments.cells CURVE < cells.json`."""
    prepare_process()
    cells = [Cell(**each) for each in orjson.loads(sys.stdin.buffer.read())]
    work(Path(sys.argv[1]), cells, lambda text: print(text, flush=True))


if __name__ == "__main__":
    enter(main)
