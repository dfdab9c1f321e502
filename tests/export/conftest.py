from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.export import cold, export
from burnish.export.forms import Form, Order
from burnish.export.parity import COLD, Parity
from burnish.export.source import Source, open_source
from burnish.recipe.load import load_recipe
from burnish.training.run import train
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[[str], Path]
TrainedRun = Callable[..., Path]
RATE = 5e-2
"""High, so that two steps of training move the logits well beyond any bound."""


@pytest.fixture(scope="session")
def trained_run(model_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run of two steps on a tiny model; runs are made once and must not be changed."""
    made: dict[tuple[str, str], Path] = {}
    folder = tmp_path_factory.mktemp("runs")
    data = write_jsonl(folder / "train.jsonl", [conversation(index) for index in range(16)])

    def make(family: str = "llama", **keys: Any) -> Path:
        key = (family, repr(sorted(keys.items())))
        if key not in made:
            settings = {
                "model": str(model_directory(family)),
                "datasets": str(data),
                "output_dir": str(folder),
            }
            settings |= {"run_name": f"run-{len(made)}", "max_steps": 2, "global_batch_size": 8, "lora_r": 4}
            settings |= {"learning_rate": RATE, "dtype": "float32", "sample_prompts": ["What of the sun?"]}
            made[key] = train(load_recipe(None, {**settings, **keys})).run
        return made[key]

    return make


def examined_here(script: Path, *words: Path) -> list[dict[str, Any]]:
    """What the cold process would find, without its start."""
    if script == COLD:
        directory, probe, _ = words
        return cold.examine(directory, probe)
    from burnish.export import cold_gguf

    path, merged, probe, _ = words
    return cold_gguf.examine(path, merged, probe)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are examined in this process."""
    monkeypatch.setattr(export, "run_cold", examined_here)


class Staged:
    """An export before it has its name, with the probe that it is examined by."""

    def __init__(self, run: Path, form: Form, place: Path) -> None:
        self.source: Source = open_source(run)
        self.folder, self.scratch = place / "export", place / "scratch"
        self.folder.mkdir(parents=True)
        self.scratch.mkdir()
        order, parity = Order(run, form, place / "out"), Parity()
        if form is Form.ADAPTER:
            assert self.source.adapter is not None
            export._stage_adapter(self.source, self.source.adapter, self.folder, self.scratch, parity)
        else:
            export._stage_whole(self.source, order, self.folder, self.scratch, parity)
        self.checks = parity.checks
        self.notes = parity.notes
        self.probe = self.scratch / "probe.json"


@pytest.fixture(scope="session")
def staged(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Form], Staged]:
    """A LoRA run, exported whole or as an adapter; to be copied before it is changed."""
    made: dict[Form, Staged] = {}

    def make(form: Form) -> Staged:
        if form not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(export, "run_cold", examined_here)
                made[form] = Staged(trained_run(adapter="lora"), form, tmp_path_factory.mktemp(form.value))
        return made[form]

    return make
