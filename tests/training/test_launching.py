"""A launch that is started again finds the run that it had begun, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from burnish.parallel.launch import Launch
from burnish.recipe.schema import Recipe
from burnish.training.launching import begun_before, forget, remember

LAUNCH = Launch(rank=0, size=2, key="launch")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe.model_validate({"model": "m", "datasets": "d.jsonl", "output_dir": str(tmp_path)})


def test_a_restart_finds_the_run_of_its_launch_until_that_is_over(recipe: Recipe, tmp_path: Path) -> None:
    assert begun_before(recipe, LAUNCH) is None
    remember(recipe, LAUNCH, tmp_path / "run")
    again = replace(LAUNCH, restarts=1)
    assert begun_before(recipe, again) == tmp_path / "run"
    assert begun_before(recipe, replace(again, key="other")) is None
    forget(recipe, again)
    assert begun_before(recipe, again) is None


def test_a_first_start_takes_nothing_over_from_an_older_launch(recipe: Recipe, tmp_path: Path) -> None:
    remember(recipe, LAUNCH, tmp_path / "old")
    assert begun_before(recipe, LAUNCH) is None
    assert begun_before(recipe, replace(LAUNCH, restarts=1)) is None


def test_a_process_that_nobody_launched_leaves_no_word(recipe: Recipe, tmp_path: Path) -> None:
    remember(recipe, Launch(), tmp_path / "run")
    assert begun_before(recipe, Launch()) is None
    assert not list(tmp_path.iterdir())
