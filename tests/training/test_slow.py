"""Longer proofs: compiled equals eager, and the real data sets that a new user would try."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from burnish.recipe.load import load_recipe
from burnish.training.run import RunResult, train

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ALPACA = SHARED / "alpaca" / "alpaca.jsonl"


def numbers(result: RunResult, kind: str) -> list[float]:
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == kind]


def run(out: Path, **keys: Any) -> RunResult:
    return train(load_recipe(None, {"output_dir": str(out), "run_name": "run", **keys}))


@pytest.mark.slow
def test_a_compiled_model_learns_as_the_eager_one(
    model_directory: Callable[..., Path], data_file: Path, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"model": str(model_directory()), "datasets": str(data_file), "max_steps": 4}
    eager = run(tmp_path / "eager", **common, dtype="float32", global_batch_size=8)
    compiled = run(tmp_path / "compiled", **common, dtype="float32", global_batch_size=8, compile=True)
    assert numbers(compiled, "train") == pytest.approx(numbers(eager, "train"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not ALPACA.exists(), reason="../shared is absent")
@pytest.mark.parametrize("model", ["marble", str(SHARED / "tiny-lm" / "TinyStories-656K")])
def test_held_out_loss_falls_until_its_minimum_on_two_thousand_alpaca_rows(
    model: str, tmp_path: Path
) -> None:
    result = run(
        tmp_path,
        model=model,
        datasets=[{"path": str(ALPACA), "max_samples": 2000}],
        val_set_size=100,
        on_bad_row="drop",
        max_length=512,
    )
    losses = numbers(result, "eval")
    lowest = losses.index(min(losses))
    assert lowest >= 3
    assert all(later < earlier for earlier, later in pairwise(losses[: lowest + 1]))
    rows = result.rows
    assert rows["read"] == rows["used"] + sum(rows["dropped"].values())
