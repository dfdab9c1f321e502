"""`burnish plan` measures the real model where it is at hand, and forecasts for hardware by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def recipe_file(model_directory: Callable[..., Path], data_file: Path, tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(
        f"model: {model_directory()}\ndatasets: {data_file}\nmax_steps: 3\nglobal_batch_size: 4\n"
    )
    return str(path)


def test_a_step_is_measured_and_the_run_forecast_from_it(burnish: Any, recipe_file: str) -> None:
    said = json.loads(burnish("plan", recipe_file, "--json").out)
    assert said["measured"]["tokens"] > 0 and said["steps"] == 3 and said["fits"] is True
    assert said["seconds"] > 0 and said["needed_bytes"] == said["measured"]["peak_bytes"]
    assert said["trainable_parameters"] >= said["parameters"]


def test_hardware_by_name_needs_no_step_and_unknown_hardware_lists_what_is_known(
    burnish: Any, recipe_file: str
) -> None:
    said = json.loads(burnish("plan", recipe_file, "--hardware", "h100", "--devices", "2", "--json").out)
    assert (said["device"], said["devices"], said["measured"]) == ("H100", 2, None)
    unknown = burnish("plan", recipe_file, "--hardware", "Abacus")
    assert unknown.code == 2 and "A100-80G" in unknown.err


def test_for_people_it_names_memory_by_part_and_time(burnish: Any, recipe_file: str) -> None:
    said = burnish("plan", recipe_file, "--no-measure").out
    assert "optimiser" in said and "activations" in said and "shared prefixes save" in said
    assert "TFLOP/s" in said


def test_every_stage_has_its_forecast_and_the_run_their_sum(
    burnish: Any, model_directory: Callable[..., Path], data_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "staged.yaml"
    path.write_text(
        f"model: {model_directory()}\ndatasets: {data_file}\nglobal_batch_size: 4\n"
        "stages:\n  - {name: short, max_steps: 2}\n  - {name: long, max_steps: 9}\n"
    )
    said = json.loads(burnish("plan", str(path), "--hardware", "H100", "--json").out)
    assert {name: stage["steps"] for name, stage in said["stages"].items()} == {"short": 2, "long": 9}
    assert abs(said["seconds"] - sum(stage["seconds"] for stage in said["stages"].values())) <= 0.2
    told = burnish("plan", str(path), "--hardware", "H100").out
    assert "stage long" in told and "all stages" in told
