from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.recipe.load import LoadedRecipe, load_recipe

Load = Callable[..., LoadedRecipe]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write `train.yaml` beside data/train.jsonl, and load it with overrides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("{}\n")

    def write_and_load(text: str, *overrides: str, smallest: bool = True) -> LoadedRecipe:
        lines = "model: marble\ndatasets: data/train.jsonl\n" if smallest else ""
        Path("train.yaml").write_text(lines + text)
        return load_recipe("train.yaml", list(overrides))

    return write_and_load
