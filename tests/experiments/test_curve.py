"""The curve: subsets, cells that are trained once, advice that says what is so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnish.errors import BurnishError, UsageError
from burnish.experiments import cells, curve, findings
from burnish.experiments.asking import METRICS
from burnish.experiments.cells import Cell, Settings, result_of
from burnish.experiments.curve import Asked
from burnish.experiments.curve_plot import plot
from burnish.experiments.subsets import apportion, default_sizes, require_sizes
from burnish.recipe.load import LoadedRecipe, load_recipe
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[..., Path]


@pytest.fixture
def loaded(model_directory: ModelDirectory, tmp_path: Path) -> LoadedRecipe:
    """Two sources of 24 and 12 rows, 6 rows of each held out."""
    sources = []
    for name, first, count in (("long", 0, 24), ("short", 100, 12)):
        rows = [conversation(index) for index in range(first, first + count)]
        sources.append({"path": str(write_jsonl(tmp_path / f"{name}.jsonl", rows)), "name": name})
        apart = [conversation(index) for index in range(first + 50, first + 56)]
        held = {
            "path": str(write_jsonl(tmp_path / f"{name}-held.jsonl", apart)),
            "name": name,
            "held_out": True,
        }
        sources.append(held)
    recipe = {
        "model": str(model_directory()), "datasets": sources, "num_epochs": 1, "global_batch_size": 8,
        "learning_rate": 1e-3, "max_length": 128, "output_dir": str(tmp_path / "runs"),
    }  # fmt: skip
    return load_recipe(None, recipe)


def stubbed(monkeypatch: pytest.MonkeyPatch, quality: Callable[[Cell], float]) -> list[str]:
    """Cells that score by a formula in place of training; returns the names of those that were asked for."""
    asked: list[str] = []

    def run_cell(folder: Path, cell: Cell, settings: Settings) -> list[float]:
        asked.append(cell.name)
        random = np.random.default_rng([cell.rows, cell.seed])
        scored = (random.random(12) < quality(cell)).astype(float).tolist()
        told = {"rows": cell.rows, "updates": cell.length, "outcomes": scored}
        cells.write_json(folder / "cells" / f"{cell.name}.json", told)
        return scored

    monkeypatch.setattr(cells, "run_cell", run_cell)
    monkeypatch.setattr(curve, "score_base", lambda folder, settings, tell: [0.0] * 12)
    return asked


def test_subsets_are_stratified_and_each_holds_the_smaller_ones() -> None:
    sizes = (800, 150, 50)
    for number in range(1, 1001):
        counts = apportion(sizes, number)
        assert sum(counts) == number
        assert all(abs(c - number * s / 1000) <= 1 for c, s in zip(counts, sizes, strict=True))
    for less, more in pairwise(apportion(sizes, n) for n in range(1, 1001)):
        assert all(a <= b for a, b in zip(less, more, strict=True))


def test_sizes_are_log_spaced_and_one_that_is_none_says_which_are() -> None:
    assert default_sizes(1100) == [10, 30, 100, 300, 1100]
    assert default_sizes(3000) == [10, 30, 100, 300, 1000, 3000]
    with pytest.raises(UsageError, match="5000") as error:
        require_sizes([30, 5000], 1100)
    assert "10,30,100,300,1100" in error.value.remedy


def test_files_of_a_seed_hold_the_recipes_rows_nested_and_held_out_rows_apart(
    loaded: LoadedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubbed(monkeypatch, lambda cell: 0.5)
    folder = tmp_path / "curve"
    curve.curve(loaded, folder, Asked(jobs=1, sizes=(6, 18, 36), seeds=2))
    settings = Settings.read(folder)
    for number, counts in ((6, [4, 2]), (18, [12, 6]), (36, [24, 12])):
        recipe = cells.recipe_of_cell(folder, Cell(number, "epochs", 1, 0), settings)
        assert [each["max_samples"] for each in recipe["datasets"]] == counts
    halved = cells.recipe_of_cell(folder, Cell(36, "steps", 5, 0, halved=1), settings)
    assert [each["max_samples"] for each in halved["datasets"]] == [24, 6]
    texts = {(folder / "pool" / f"seed-{seed}" / "source-0.jsonl").read_bytes() for seed in (0, 1)}
    assert len(texts) == 2  # seeds take the same rows in another order
    assert len({tuple(sorted(text.splitlines())) for text in texts}) == 1
    held = [json.loads(line) for line in (folder / "pool" / "held_out-0.jsonl").read_text().splitlines()]
    assert held == [conversation(index) for index in range(50, 56)]


def test_finished_cells_are_not_trained_again_and_new_sizes_join_them(
    loaded: LoadedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = stubbed(monkeypatch, lambda cell: 0.5)
    folder = tmp_path / "curve"
    curve.curve(loaded, folder, Asked(jobs=1, sizes=(6, 36), seeds=2, rules=("epochs",)))
    assert len(asked) == 4
    curve.curve(loaded, folder, Asked(jobs=1, sizes=(6, 18, 36), seeds=2, rules=("epochs",)))
    assert asked[4:] == ["rows-18-epochs-1-seed-0", "rows-18-epochs-1-seed-1"]
    (folder / "cells" / "rows-6-epochs-1-seed-1.json").unlink()  # as a kill would leave it
    curve.curve(loaded, folder, Asked(jobs=1, sizes=(6, 18, 36), seeds=2, rules=("epochs",)))
    assert asked[6:] == ["rows-6-epochs-1-seed-1"]


def test_a_folder_of_another_question_is_refused_with_the_difference(
    loaded: LoadedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubbed(monkeypatch, lambda cell: 0.5)
    folder = tmp_path / "curve"
    curve.curve(loaded, folder, Asked(jobs=1, sizes=(6, 36), seeds=1))
    other = load_recipe(None, {**loaded.recipe.model_dump(mode="json"), "learning_rate": 2e-3})
    with pytest.raises(UsageError, match=r"learning_rate 0\.001 -> 0\.002") as error:
        curve.curve(other, folder, Asked(jobs=1, sizes=(6, 36), seeds=1))
    assert "--out" in error.value.remedy


def test_the_size_whose_epochs_are_the_steps_is_one_cell(loaded: LoadedRecipe, tmp_path: Path) -> None:
    rows = curve.rows_of(loaded.recipe)
    made = curve.cells_of(loaded.recipe, rows, Asked(jobs=1, seeds=1), [6, 36])
    assert [cell.name for cell in made] == [
        "rows-36-epochs-1-seed-0",
        "rows-6-epochs-1-seed-0",
        "rows-6-steps-5-seed-0",
    ]
    halved = curve.cells_of(loaded.recipe, rows, Asked(jobs=1, seeds=1, halve_sources=True), [6, 36])
    assert [cell.halved for cell in halved] == [None, None, None, 0, 1]


def test_a_recipe_that_holds_nothing_out_is_told_what_to_say(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    loaded = load_recipe(None, {"model": str(model_directory()), "datasets": str(data_file)})
    with pytest.raises(UsageError, match="holds no row out") as error:
        curve.curve(loaded, tmp_path / "curve", Asked())
    assert "val_set_size" in error.value.remedy


def test_trained_cells_score_every_held_out_row_and_a_killed_one_goes_on(
    loaded: LoadedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "curve"
    real, calls = cells.train, []

    def dies(recipe: LoadedRecipe) -> Any:
        calls.append(recipe.recipe.run_name)
        result = real(recipe)
        if len(calls) == 1:
            raise KeyboardInterrupt  # trained, and killed before it was scored
        return result

    monkeypatch.setattr(cells, "train", dies)
    asked = Asked(jobs=1, sizes=(6, 36), seeds=1, metric="loss", rules=("epochs",))
    with pytest.raises(KeyboardInterrupt):
        curve.curve(loaded, folder, asked)
    found = curve.curve(loaded, folder, asked)
    assert calls == ["rows-36-epochs-1-seed-0", "rows-6-epochs-1-seed-0"]  # the killed one was gone on with
    assert not any((folder / "runs").iterdir())
    outcomes = {rows: result_of(folder, f"rows-{rows}-epochs-1-seed-0") for rows in (6, 36)}
    assert all(one and len(one["outcomes"]) == 12 for one in outcomes.values())
    assert outcomes[6]["rows_used"] == 6 and outcomes[36]["rows_used"] == 36
    assert found["base"]["value"] > found["sizes"]["epochs"][-1]["value"]  # training lowers the loss
    assert set(found["points"][0]["by_source"]) == {"long", "short"}
    assert json.loads((folder / "curve.json").read_text())["version"] == 1
    assert (folder / "curve.svg").read_text().startswith("<svg")


def test_a_worker_that_fails_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(folder: Path, number: int, jobs: int, given: bytes) -> subprocess.Popen[bytes]:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "logs" / f"worker-{number}.log").write_text("first\nthe disk is full\n")
        return subprocess.Popen(["false"] if number else ["true"])

    monkeypatch.setattr(curve, "_start", start)
    with pytest.raises(BurnishError, match="the disk is full") as error:
        curve.run_all(tmp_path, [Cell(1, "epochs", 1, 0), Cell(2, "epochs", 1, 0)], jobs=2, tell=print)
    assert "worker-1.log" in error.value.remedy


def conclusion(value: Callable[[int], float], *, sources: tuple[str, ...] = ("all",), **asked: Any) -> Any:
    """What is concluded from outcomes that follow a formula, 400 rows a source, three seeds."""
    held = [{"name": name, "rows": 400} for name in sources]
    settings = Settings({}, {}, "exact", None, held, "")
    found = []
    for rows in (10, 30, 100, 300, 1000):
        for seed in range(3):
            own = [
                (
                    np.random.default_rng([rows, seed, k]).permutation(400)
                    < 400 * value(rows) * (0.5 if k else 1)
                )
                for k in range(len(sources))
            ]
            one = {"outcomes": np.concatenate(own).astype(float).tolist(), "updates": rows}
            found.append((Cell(rows, "epochs", 1, seed), one))
    question = Asked(rules=("epochs",), **asked)
    return findings.conclude(settings, question, [0.0] * 400 * len(sources), found, titles=list(sources))


def test_a_flat_curve_says_stop_and_a_rising_one_says_more() -> None:
    flat = conclusion(lambda n: 0.95 - 0.95 / (1 + (n / 20) ** 1.6))
    assert any(
        "the next 1,000 rows would buy" in each and "stop collecting" in each for each in flat["advice"]
    )
    assert any("reaches 95% of the way to its plateau" in each for each in flat["advice"])
    assert 80 < flat["fit"]["epochs"]["rows_at_95"] < 180
    rising = conclusion(lambda n: 0.2 * np.log10(n), next_rows=4000)
    assert any("not yet flat: collect more" in each for each in rising["advice"])


def test_equal_steps_take_an_epochs_cell_only_where_it_made_as_many_updates() -> None:
    """A training that is missing is missing: ten rows of four epochs are not ten rows of 125 updates."""
    steps = [(Cell(rows, "steps", 125, 0), {"outcomes": [1.0], "updates": 125}) for rows in (30, 100)]
    epochs = [
        (Cell(rows, "epochs", 4, 0), {"outcomes": [0.0], "updates": updates})
        for rows, updates in ((10, 4), (30, 8), (500, 125))
    ]
    found = [*steps, *epochs]
    assert list(findings._by_size(found, "steps")) == [30, 100, 500]
    assert list(findings._by_size(found, "epochs")) == [10, 30, 500]


def test_a_picture_has_every_size_and_the_level_it_is_compared_with() -> None:
    picture = plot(conclusion(lambda n: 0.95 - 0.95 / (1 + (n / 20) ** 1.6)), levels={"4-shot": 0.4})
    assert picture.count("<circle") == 5 and "4-shot" in picture and "1,000" in picture


def test_sources_that_are_not_flat_are_named() -> None:
    def by_source(n: int) -> float:
        return 0.9 - 0.9 / (1 + (n / 2000) ** 0.9)

    found = conclusion(by_source, sources=("cities", "rivers"))
    said = next(each for each in found["advice"] if "by source" in each)
    assert "collect more of cities" in said and "rivers" in said


def test_numbers_of_rows_are_told_to_two_digits() -> None:
    assert [findings.number(n) for n in (7.2, 637.2, 12345.0, 1e9)] == [
        "7",
        "640",
        "12,000",
        "more than 10 million",
    ]
    assert METRICS["exact"].words(0.0042, signed=True) == "+0.4" and METRICS["loss"].words(1.23456) == "1.235"
