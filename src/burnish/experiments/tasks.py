"""Instruction following as a skill across tasks: loss on tasks never trained, against the number of training tasks.

    python -m burnish.experiments.tasks ../shared/data/super-ni              the last line is the result, as JSON
    python -m burnish.experiments.tasks ../shared/data/super-ni --write docs/tasks.svg

Tasks of Super-NaturalInstructions in its official split: training and test tasks share no category. Every run makes
the same number of updates of the same size; what differs is from how many tasks their rows come. Of one seed, the
smaller set of tasks is a part of the larger.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import orjson

from burnish.experiments.chart import Point, chart
from burnish.experiments.entry import enter
from burnish.experiments.whole import held_out_losses, uninterrupted
from burnish.recipe.load import load_recipe
from burnish.training.run import train

PHRASINGS = [
    "{{definition}}\n\n{{input}}",
    "{{input}}\n\n{{definition}}",
    "Task: {{definition}}\nInput: {{input}}\nOutput:",
]
RECIPE: dict[str, Any] = {
    "model": "marble",
    "max_length": 384,
    "global_batch_size": 16,
    "learning_rate": 1e-3,
    "mixture": "temperature",
    "mixture_temperature": 2.0,
    "dtype": "float32",
}
HELD_OUT_ROWS = 12
"""Of each task that is never trained; every evaluation goes through all of them."""


def write_tasks(data: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The tasks of each side as sources of a recipe: a file of raw rows, its phrasings, its category."""
    told: dict[str, list[dict[str, Any]]] = {}
    for side in ("train", "test"):
        names = (data / f"subset_{side}_tasks.txt").read_text(encoding="utf-8").split()
        for name in names:
            path = data / "tasks" / f"{name}.json"
            if path.exists():
                task = orjson.loads(path.read_bytes())
                source = _source(name, task, folder)
                told.setdefault(side, []).append(source)
    return told


def _source(name: str, task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    rows = [
        {"definition": task["Definition"][0], "input": row["input"], "output": row["output"][0]}
        for row in task["Instances"]
        if row["output"] and row["output"][0].strip()
    ]
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return {
        "path": str(path),
        "name": name,
        "group": task["Categories"][0],
        "prompt": PHRASINGS,
        "response": "{{output}}",
    }


def losses(
    tasks: Mapping[str, Sequence[Mapping[str, Any]]], number: int, *, steps: int, seed: int, out: Path
) -> tuple[float, float]:
    """The mean over held-out tasks of their loss, before and after training on so many tasks."""
    order = list(tasks["train"])
    random.Random(seed).shuffle(order)
    apart = [{**task, "held_out": True, "max_samples": HELD_OUT_ROWS} for task in tasks["test"]]
    loaded = load_recipe(
        None,
        {
            **RECIPE,
            "datasets": [*apart, *order[:number]],
            "max_steps": steps,
            "eval_steps": steps,
            "seed": seed,
            "output_dir": str(out),
        },
    )
    found = [mean(losses.values()) for losses in held_out_losses(uninterrupted(train(loaded)))]
    return found[0], found[-1]


def study(data: Path, numbers: Sequence[int], *, steps: int, seeds: Iterable[int]) -> dict[str, Any]:
    """The curve: for each number of tasks, the held-out loss of each seed."""
    curve: dict[int, list[float]] = {}
    base = 0.0
    with tempfile.TemporaryDirectory() as folder:
        tasks = write_tasks(data, Path(folder))
        for number in numbers:
            for seed in seeds:
                out = Path(folder) / f"{number}-{seed}"
                base, after = losses(tasks, number, steps=steps, seed=seed, out=out)
                curve.setdefault(number, []).append(round(after, 4))
                print(number, seed, round(base, 4), round(after, 4), flush=True)
    return {"steps": steps, "held_out_tasks": len(tasks["test"]), "base": round(base, 4), "curve": curve}


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Results of different seeds as one curve."""
    whole = dict(parts[0])
    numbers = {number for part in parts for number in part["curve"]}
    whole["curve"] = {
        number: [loss for part in parts for loss in part["curve"].get(number, [])]
        for number in sorted(numbers, key=int)
    }
    return whole


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder of Super-NaturalInstructions")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--join", type=Path, nargs="+", help="results of other seeds: no training, one curve")
    parser.add_argument("--write", type=Path, help="file for the chart")
    given = parser.parse_args()
    if given.join:
        result = joined([orjson.loads(path.read_bytes().splitlines()[-1]) for path in given.join])
    else:
        result = study(given.data, given.tasks, steps=given.steps, seeds=given.seeds)
    if given.write:
        points = [
            Point(int(number), mean(found), stdev(found) if len(found) > 1 else 0.0)
            for number, found in result["curve"].items()
        ]
        lines = {
            "trained": points,
            "base": [Point(int(number), result["base"]) for number in result["curve"]],
        }
        page = chart("loss on tasks never trained", "training tasks (equal updates)", lines, log=True)
        given.write.write_text(page, encoding="utf-8")
    print(orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS).decode())


if __name__ == "__main__":
    enter(main)
