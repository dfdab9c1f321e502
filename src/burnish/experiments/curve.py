"""The data-efficiency curve: what a recipe's rows are worth, from a few of them to all, over seeds.

    curve(load_recipe("recipe.yaml"), Path("runs/recipe-curve"), Asked(sizes=(30, 100, 300)))
    -> {"version": 1, "points": [...], "fit": {"epochs": {"plateau": ...}}, "advice": ["...stop collecting"]}

Two rules make sizes comparable, and the difference matters. Equal epochs: each row is seen equally often, so few rows
mean few updates. Equal steps: as many updates for every size, so few rows are seen very often. A small set that
does badly under the first and well under the second lacked updates, not rows.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from torch.cuda import device_count

from burnish.errors import BurnishError, UsageError
from burnish.experiments.asking import metric_named
from burnish.experiments.cells import (
    EPOCHS,
    RULES,
    STEPS,
    Cell,
    Settings,
    Told,
    result_of,
    score_base,
    work,
    write_json,
)
from burnish.experiments.curve_plot import plot
from burnish.experiments.findings import conclude
from burnish.experiments.subsets import (
    Rows,
    apportion,
    describe_sources,
    require_sizes,
    rows_of,
    write_held_out,
    write_order,
)
from burnish.models.load import count_parameters
from burnish.parallel.runtime import host_memory
from burnish.recipe.load import LoadedRecipe, fit_to_size
from burnish.recipe.schema import Recipe

NOT_A_CELLS = (
    *("datasets", "val_set_size", "val_datasets", "early_stopping_patience", "sample_prompts", "report_to"),
    *("eval_steps", "save_steps", "num_epochs", "max_steps", "seed", "output_dir", "run_name", "stages"),
)
"""Keys of the recipe that a cell does not take over: what it trains on, for how long, what it watches meanwhile."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a curve; None and empty leave it to the recipe and its data."""

    sizes: tuple[int, ...] = ()
    seeds: int = 3
    rules: tuple[str, ...] = RULES
    metric: str = "exact"
    steps: int | None = None
    halve_sources: bool = False
    next_rows: int = 1000
    worth: float | None = None
    max_new_tokens: int | None = None
    jobs: int | None = None
    as_is: bool = False
    """Conclude from the cells that are there, and train none."""


def curve(loaded: LoadedRecipe, folder: Path, asked: Asked, tell: Told = lambda text: None) -> dict[str, Any]:
    """Train what is not there yet, fit, and write curve.json and curve.svg into the folder."""
    loaded = fit_to_size(loaded, count_parameters(loaded.recipe.model))
    metric_named(asked.metric)
    rows = rows_of(loaded.recipe)
    sizes = require_sizes(asked.sizes, sum(rows.sizes))
    settings = settings_of(loaded.recipe, rows, folder, asked)
    cells = cells_of(loaded.recipe, rows, asked, sizes)
    base = score_base(folder, settings, tell)
    missing = [cell for cell in cells if result_of(folder, cell.name) is None]
    if len(missing) < len(cells):
        tell(f"{len(cells) - len(missing)} of {len(cells)} cells are there already")
    if asked.as_is:
        tell(f"{len(missing)} trainings are not there, and are left out")
    else:
        jobs = min(asked.jobs or default_jobs(count_parameters(loaded.recipe.model)), max(1, len(missing)))
        tell(f"{len(missing)} trainings to make, {jobs} at a time")
        run_all(folder, missing, jobs=jobs, tell=tell)
    found = [(cell, result_of(folder, cell.name)) for cell in cells]
    result = conclude(
        settings, asked, base, [(cell, one) for cell, one in found if one], titles=_titles(rows)
    )
    write_json(folder / "curve.json", result)
    (folder / "curve.svg").write_text(plot(result), encoding="utf-8")
    return result


def settings_of(recipe: Recipe, rows: Rows, folder: Path, asked: Asked) -> Settings:
    """Write the pool, and the folder's settings; more sizes and seeds may join later, another question may not."""
    kept = recipe.model_dump(mode="json", exclude=set(NOT_A_CELLS))
    digest = blake2b(digest_size=16)
    for seed in range(asked.seeds):
        paths = write_order(rows, folder / "pool" / f"seed-{seed}", seed=seed)
        if seed == 0:
            for path in paths:
                digest.update(path.read_bytes())
    held_out = write_held_out(rows, folder / "pool")
    for each in held_out:
        digest.update(Path(each["path"]).read_bytes())
        each["path"] = str(Path(each["path"]).relative_to(folder))
    settings = Settings(
        kept, describe_sources(rows), asked.metric, asked.max_new_tokens, held_out, digest.hexdigest()
    )
    settings.keep(folder)
    return settings


def cells_of(recipe: Recipe, rows: Rows, asked: Asked, sizes: Sequence[int]) -> list[Cell]:
    """Every training, seed by seed, the large ones of a seed first: then workers end together.

    A size whose epochs come to as many updates as the steps is one cell, under the name of the first rule.
    """
    total = sum(rows.sizes)
    epochs = recipe.num_epochs or max(
        1, math.ceil((recipe.max_steps or 1) * recipe.global_batch_size / total)
    )
    steps = asked.steps or recipe.max_steps or updates(max(sizes), epochs, recipe)
    cells = []
    for seed in range(asked.seeds):
        for size in sorted(sizes, reverse=True):
            cells += [cell_for(rule, size, seed, recipe, epochs, steps) for rule in asked.rules]
        if asked.halve_sources and len(rows.sizes) > 1:
            same = updates(max(sizes), epochs, recipe) if asked.rules[0] == EPOCHS else steps
            counts = apportion(rows.sizes, max(sizes))
            cells += [
                Cell(max(sizes), STEPS, same, seed, number)
                for number, count in enumerate(counts)
                if count > 1
            ]
    return list(dict.fromkeys(cells))


def cell_for(rule: str, size: int, seed: int, recipe: Recipe, epochs: int, steps: int) -> Cell:
    """The cell of a size under a rule; equal steps that are its epochs' too are those."""
    plain = recipe.mixture == "concat" and recipe.replay is None
    if rule == EPOCHS or (plain and updates(size, epochs, recipe) == steps):
        return Cell(size, EPOCHS, epochs, seed)
    return Cell(size, STEPS, steps, seed)


def updates(rows: int, epochs: int, recipe: Recipe) -> int:
    """The updates of so many epochs."""
    return epochs * math.ceil(rows / recipe.global_batch_size)


def run_all(folder: Path, cells: Sequence[Cell], *, jobs: int, tell: Told) -> None:
    """Train the cells here, or in processes of their own, each with its share of the cores."""
    if not cells:
        return
    if jobs == 1:
        work(folder, cells, tell)
        return
    given = orjson.dumps([asdict(cell) for cell in cells])
    children = [_start(folder, number, jobs, given) for number in range(jobs)]
    try:
        for number, child in enumerate(children):
            if child.wait():
                raise _failed(folder / "logs" / f"worker-{number}.log", child.returncode)
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()  # a run that is told to end saves its checkpoint first
        for child in children:
            child.wait()
    for cell in cells:
        if result_of(folder, cell.name) is not None:
            tell(f"{cell.name}: done")


def _start(folder: Path, number: int, jobs: int, given: bytes) -> subprocess.Popen[bytes]:
    threads = str(max(1, cores() // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [each for each in said.split(",") if each] if said else list(map(str, range(device_count())))
    if len(devices) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with (folder / "logs" / f"worker-{number}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "burnish.experiments.cells", str(folder)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
        )  # fmt: skip
    if child.stdin is not None:
        child.stdin.write(given)
        child.stdin.close()
    return child


def _failed(log: Path, code: int) -> BurnishError:
    last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return BurnishError(
        f"a worker ended with {code}: {' / '.join(last[-3:])[:400]}",
        rule="every cell of a curve is trained; those that are finished stay",
        remedy=f"see {log}, mend it, and run the same command again; --jobs 1 shows the error as it comes",
    )


def default_jobs(num_parameters: int) -> int:
    """One training for each GPU; without one, for each core, as far as memory goes."""
    per_job = 1.5e9 + 24 * num_parameters
    return device_count() or max(1, min(cores(), int(0.8 * host_memory() / per_job)))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_rules(words: Sequence[str]) -> tuple[str, ...]:
    """The rules by name."""
    bad = [word for word in words if word not in RULES]
    if bad or not words:
        raise UsageError(
            f"--rule {','.join(words)}",
            rule="sizes are compared at equal epochs, at equal steps, or at both",
            remedy="--rule epochs,steps",
        )
    return tuple(dict.fromkeys(words))


def _titles(rows: Rows) -> list[str]:
    return [source.title for source in rows.sources]
