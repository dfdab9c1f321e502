"""A finished run, opened for export: what training left, checked against what training said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from burnish.errors import DataError, UsageError
from burnish.export.adapter_facts import AdapterFacts, read_adapter
from burnish.models.identity import CHAT_JSON, ChatIdentity, read_identity
from burnish.models.locate import locate, read_json
from burnish.models.tokenizer import ChatTokenizer, load_chat_tokenizer
from burnish.recipe.choices import Adapter, DType
from burnish.recipe.load import load_recipe
from burnish.recipe.schema import Recipe
from burnish.training.directory import RunDirectory, open_run


@dataclass(frozen=True, slots=True)
class Source:
    """A finished run. `place` is the folder whose tokenizer, template and chat.json are training's own."""

    run: RunDirectory
    recipe: Recipe
    place: Path
    identity: ChatIdentity
    tokenizer: ChatTokenizer
    adapter: AdapterFacts | None

    @property
    def name(self) -> str:
        """What the exported model is called: the run's name."""
        return self.run.path.resolve().name

    @property
    def stop_ids(self) -> list[int]:
        """The ids training taught to stop at, the tokenizer's end of text among them."""
        end = self.tokenizer.tokenizer.eos_token_id
        return sorted({*self.identity.stop_ids, *([] if end is None else [end])})

    @property
    def base(self) -> str:
        """What the base is called outside this machine: its hub id, or else its folder's full path."""
        place = locate(self.recipe.model)
        given = Path(self.recipe.model).expanduser()
        return str(place.resolve()) if given.is_dir() or self.recipe.model == "marble" else self.recipe.model

    def dtype(self, asked: DType | None) -> torch.dtype:
        """The dtype to write: the one asked for, or else that of training's own weights."""
        said = asked.value if asked else self.config.get("dtype") or self.config.get("torch_dtype")
        return getattr(torch, str(said or "float32"))  # type: ignore[no-any-return]

    @property
    def config(self) -> dict[str, Any]:
        """config.json of the finished model, or of the base where only an adapter was kept."""
        final = self.run.final / "config.json"
        return read_json(final if final.is_file() else locate(self.recipe.model) / "config.json")


def open_source(path: Path) -> Source:
    """Open a run directory; UsageError where it is not finished, DataError where its parts disagree."""
    run = open_run(path)
    recipe = load_recipe(run.path / "resolved.yaml", []).recipe
    adapter = (
        read_adapter(run.adapter) if recipe.adapter is not Adapter.FULL and run.adapter.is_dir() else None
    )
    weights = list(run.final.glob("*.safetensors"))
    if adapter is None and not weights:
        raise UsageError(
            f"{run.path} has no finished model",
            rule="what is exported is what a run ended with: final/, or adapter/ on its base",
            remedy=f"burnish resume {run.path}",
        )
    place = adapter.directory if adapter else run.final
    identity = read_identity(place)
    if identity is None:
        raise DataError(
            f"{place}: no {CHAT_JSON}",
            rule="the template and the stop ids of training are proved from the file that training wrote",
            remedy="restore it from a copy of the run, or train again",
        )
    return Source(run, recipe, place, identity, load_chat_tokenizer(str(place), chat=False), adapter)
