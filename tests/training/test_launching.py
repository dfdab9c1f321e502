"""A launch that is started again finds the run that it had begun, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from burnish.errors import UsageError
from burnish.parallel.launch import Launch
from burnish.parallel.mesh import Mesh
from burnish.parallel.ranks import ALONE
from burnish.recipe.schema import Recipe
from burnish.training.launching import begun_before, forget, refuse_guard, remember

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


def test_a_guard_is_refused_where_it_takes_several_ranks_to_read_a_row(tmp_path: Path) -> None:
    guarded = Recipe.model_validate({"model": "m", "datasets": "d.jsonl", "forgetting": {}})
    refuse_guard(guarded, replace(ALONE, mesh=Mesh(replicate=4)))
    for mesh in (Mesh(shard=2), Mesh(replicate=2, context=2)):
        with pytest.raises(UsageError, match=r"forgetting, and \d ranks") as caught:
            refuse_guard(guarded, replace(ALONE, mesh=mesh))
        assert "data_parallel=replicate" in caught.value.remedy
