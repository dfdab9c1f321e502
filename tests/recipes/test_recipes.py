"""Every recipe in recipes/ is short, and takes steps on a CPU as it stands (a tiny model in place of a hub's)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.experiments.thesis import write_demonstrations
from burnish.recipe.load import load_recipe
from burnish.training.run import train

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize("name", ["assistant", "lora", "own-data"])
def test_a_recipe_takes_two_steps(name: str, model_directory: Callable[..., Path], tmp_path: Path) -> None:
    path = RECIPES / f"{name}.yaml"
    assert len(path.read_text().splitlines()) <= 30
    changes = ["max_steps=2", f"output_dir={tmp_path}", "run_name=run"]
    if name == "own-data":
        changes.append(f"model={model_directory()}")
    result = train(load_recipe(path, changes))
    assert (result.steps, result.stopped_by) == (2, "finished")
    assert result.final.is_dir()


def test_a_model_is_pretrained_from_random_weights_by_the_recipe_that_made_marble(
    model_directory: Callable[..., Path], tmp_path: Path
) -> None:
    blank = tmp_path / "blank"
    blank.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (blank / name).write_bytes((model_directory() / name).read_bytes())
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "The sun is bright."}\n' + '{"text": "The sea is cold and deep."}\n')
    changes = [
        f"model={blank}",
        f"datasets={corpus}",
        "val_set_size=0",
        "max_steps=2",
        f"output_dir={tmp_path}",
    ]
    result = train(load_recipe(RECIPES / "marble.yaml", changes), from_scratch=True)
    assert result.steps == 2


def test_the_demonstrations_beside_the_recipes_are_those_the_generator_writes(tmp_path: Path) -> None:
    write_demonstrations(tmp_path / "written.jsonl")
    assert (RECIPES / "demonstrations.jsonl").read_bytes() == (tmp_path / "written.jsonl").read_bytes()
