"""A launch that is started again finds the run that it had begun, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnish.errors import UsageError
from burnish.parallel.bounds import refuse
from burnish.parallel.launch import Launch
from burnish.parallel.mesh import Mesh
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


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"forgetting": {}}, r"forgetting, and \d ranks"),
        ({"adapter": "qdora"}, r"adapter: qdora, and \d ranks"),
        ({"optimizer": "muon"}, r"optimizer: muon, and \d ranks"),
    ],
)
def test_what_needs_the_whole_model_is_refused_where_a_rank_has_a_part(
    keys: dict[str, Any], said: str
) -> None:
    asked = Recipe.model_validate({"model": "m", "datasets": "d.jsonl", **keys})
    refuse(asked, Mesh(replicate=4))
    meshes = [Mesh(shard=2), Mesh(replicate=2, shard=2)]
    for mesh in meshes + ([Mesh(replicate=2, context=2)] if "forgetting" in keys else []):
        with pytest.raises(UsageError, match=said) as caught:
            refuse(asked, mesh)
        assert "data_parallel=replicate" in caught.value.remedy
