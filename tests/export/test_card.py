"""The card says what the run directory says, invents nothing, and cannot be written by what it quotes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from burnish.export.card import UNKNOWN, base_licence, code, write_card
from burnish.export.forms import Form, Order
from burnish.export.parity import Parity
from burnish.export.source import open_source
from tests.export.conftest import TrainedRun


def card(run: Path, tmp_path: Path, form: Form = Form.HF) -> str:
    source = open_source(run)
    write_card(
        source, Order(run, form, tmp_path), tmp_path, parity=Parity(), command=None, remarks=["mind this"]
    )
    return (tmp_path / "README.md").read_text()


def test_a_card_names_data_recipe_scores_and_what_is_not_known(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    text = card(trained_run(adapter="lora"), tmp_path)
    _, matter, body = text.split("---\n", 2)
    assert yaml.safe_load(matter)["library_name"] == "transformers"
    assert "license" not in yaml.safe_load(matter)
    for said in (
        "16 rows read, 16 used",
        "lora_r: `4`",
        "2 updates",
        "mind this",
        "`<|im_end|>`",
        "train.jsonl",
    ):
        assert said in body
    assert body.count(UNKNOWN) == 2


def test_the_adapters_card_says_how_many_rows_the_base_needs(trained_run: TrainedRun, tmp_path: Path) -> None:
    assert "resize_token_embeddings(386" in card(trained_run(adapter="lora"), tmp_path, Form.ADAPTER)


def test_the_licence_is_the_one_of_the_bases_own_card(trained_run: TrainedRun) -> None:
    source = open_source(trained_run(adapter="full"))
    readme = Path(source.base) / "README.md"
    try:
        readme.write_text("---\nlicense: mit\n---\n# Base\n")
        assert base_licence(source) == "mit"
        readme.write_text("---\nlicense: [a, b\n---\n")
        assert base_licence(source) is None
        readme.write_text("---\nlicense: 'x](javascript:)'\n---\n")
        assert base_licence(source) is None
    finally:
        readme.unlink()


@pytest.mark.parametrize("value", ["a`b", "``", "x\n# Title", "<script>", "|"])
def test_a_quoted_value_stays_in_its_quotes(value: str) -> None:
    quoted = code(value)
    fence = quoted[: len(quoted) - len(quoted.lstrip("`"))]
    assert quoted.endswith(fence)
    assert "\n" not in quoted
    assert fence not in quoted[len(fence) : -len(fence)]
