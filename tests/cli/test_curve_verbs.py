"""`burnish curve` and `burnish fewshot` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.cli import curve as curve_verb
from burnish.cli import fewshot as fewshot_verb

ModelDirectory = Callable[..., Path]

FOUND: dict[str, Any] = {
    "metric": "exact",
    "held_out": 8,
    "base": {"value": 0.0},
    "sizes": {"epochs": [{"rows": 10, "value": 0.5, "low": 0.2, "high": 0.8}]},
    "advice": ["equal epochs: the next 1,000 rows would buy +0.4 ± 0.5 points: stop collecting"],
}
ARMS: dict[str, Any] = {
    "metric": "exact",
    "held_out": 8,
    "layout": "qa",
    "arms": [{"name": "zero-shot", "value": 0.0, "low": 0.0, "high": 0.3, "tokens_per_request": 20.0}],
    "advice": ["fine-tuning pays for itself after 2,000 requests"],
}


@pytest.fixture
def recipe(model_directory: ModelDirectory, data_file: Path, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {model_directory()}\ndatasets: {data_file}\nval_set_size: 8\n")
    return str(path)


def test_curve_prints_the_table_and_the_advice_or_one_line_of_json(
    burnish: Any, recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def curve(loaded: Any, folder: Path, asked: Any, tell: Any) -> dict[str, Any]:
        seen.append((folder, asked))
        return FOUND

    monkeypatch.setattr(curve_verb, "curve", curve)
    ran = burnish("curve", recipe, "--sizes", "10,1_000", "--rule", "epochs", "--out", str(tmp_path / "c"))
    assert ran.code == 0, ran.err
    assert "stop collecting" in ran.out and "50.0 (20.0 to 80.0)" in ran.out
    assert seen[0][0] == tmp_path / "c"
    assert seen[0][1].sizes == (10, 1000) and seen[0][1].rules == ("epochs",)
    ran = burnish("curve", recipe, "--json")
    assert json.loads(ran.out) == FOUND
    assert seen[1][0] == Path("runs/recipe-curve")


def test_fewshot_prints_arms_and_takes_prices(
    burnish: Any, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def fewshot(loaded: Any, folder: Path, asked: Any, tell: Any) -> dict[str, Any]:
        seen.append(asked)
        return ARMS

    monkeypatch.setattr(fewshot_verb, "fewshot", fewshot)
    ran = burnish(
        "fewshot", recipe, "--shots", "1,4", "--price-prompt", "1", "--price-completion", "2",
        "--cost-training", "5",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "zero-shot" in ran.out and "2,000 requests" in ran.out
    assert seen[0].shots == (1, 4) and seen[0].prices.training == 5


@pytest.mark.parametrize(
    ("words", "saw"),
    [
        (("curve", "--sizes", "ten"), "--sizes 'ten'"),
        (("curve", "--rule", "rows"), "--rule rows"),
        (("curve", "--metric", "bleu"), "--metric bleu"),
        (("curve", "--sizes", "10,5000"), "the recipe has 32 training rows"),
        (("fewshot", "--layout", "prose"), "--layout prose"),
        (("fewshot", "--cost-training", "5"), "no price of a request"),
    ],
)
def test_what_cannot_be_is_said_in_three_parts(
    burnish: Any, recipe: str, words: tuple[str, ...], saw: str
) -> None:
    ran = burnish(words[0], recipe, *words[1:], "--json")
    assert ran.code == 2
    told = json.loads(ran.out)
    assert saw in told["saw"] and told["rule"] and told["remedy"]
