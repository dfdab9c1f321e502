"""From a YAML file and overrides to a checked recipe that knows where each of its values was said.

loaded = load_recipe("train.yaml", ["lora_r=8"])
loaded.recipe.lora_r          8
loaded.origins["lora_r"]      "override"
loaded.origins["model"]       "train.yaml:1"
loaded.origins["datasets[0].path"]    "train.yaml:2"
loaded.origins["learning_rate"]       "default for adapter: lora"
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from burnish.errors import UsageError
from burnish.recipe import locate
from burnish.recipe.complain import complain, dotted
from burnish.recipe.document import Document, Place, read_document
from burnish.recipe.said import SOURCE_LISTS, Said, add_overrides, said_in
from burnish.recipe.schema import DatasetSource, Forgetting, Recipe, default_rate
from burnish.recipe.words import SECRET

FOLLOWS = {
    "learning_rate": "adapter",
    "lora_alpha": "lora_r",
    "warmup_ratio": "warmup_steps",
    "num_epochs": "max_steps",
}
"""Keys whose default depends on another key."""

WORDS = {"model", "tokenizer", "chat_template", "output_dir", "run_name", "path", "split", "name"}
"""Keys that take text: `run_name: 2024` means the text as written, not the number."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, its file, and where each value was said: `train.yaml:3`, `override`, `default`, ..."""

    recipe: Recipe
    origins: dict[str, str]
    path: Path | None


def load_recipe(source: str | Path | None, overrides: Mapping[str, Any] | Sequence[str] = ()) -> LoadedRecipe:
    """Read and check a recipe; without a file, everything comes from `overrides`."""
    path = Path(source) if source is not None else None
    said = said_in(read_document(path), str(path)) if path else Said()
    from_python = path is None and isinstance(overrides, Mapping)
    add_overrides(said, overrides, "argument" if from_python else "override")
    _take_datasets_of_first_stage(said)
    _take_words_as_written(said)
    _refuse_secrets(said.values, (), said)
    name = str(path) if path else "the recipe"
    try:
        recipe = Recipe(**said.values)
    except ValidationError as error:
        raise complain(error, said, name) from error
    recipe = _locate_paths(recipe, said, path)
    return LoadedRecipe(recipe, _origins(recipe, said), path)


def fit_to_size(loaded: LoadedRecipe, num_parameters: int) -> LoadedRecipe:
    """The recipe with a learning rate that fits the model's size, where the user said none."""
    if not loaded.origins["learning_rate"].startswith("default"):
        return loaded
    rate = default_rate(loaded.recipe.adapter, num_parameters)
    origin = f"default for adapter: {loaded.recipe.adapter} at {num_parameters:,} parameters"
    return LoadedRecipe(
        loaded.recipe.model_copy(update={"learning_rate": rate}),
        {**loaded.origins, "learning_rate": origin},
        loaded.path,
    )


def _take_datasets_of_first_stage(said: Said) -> None:
    """A recipe whose stages all name their data needs no `datasets` of its own."""
    stages = said.values.get("stages")
    if isinstance(stages, list) and stages and said.values.get("datasets") is None:
        place: Place = ("stages", 0, "datasets")
        first = stages[0].get("datasets") if isinstance(stages[0], dict) else None
        said.put(("datasets",), Document(copy.deepcopy(first)), said.origin(place))


def _take_words_as_written(said: Said) -> None:
    for place, text in said.texts.items():
        container: Any = said.values
        for step in place[:-1]:
            container = container[step]
        is_key = len(place) == 1 or (place[0] in SOURCE_LISTS and len(place) == 3)
        if is_key and place[-1] in WORDS and container[place[-1]] is not None:
            container[place[-1]] = text


def _refuse_secrets(value: Any, place: Place, said: Said) -> None:
    """A recipe is copied into the run directory and shown around, so it must hold no key or password."""
    if isinstance(value, dict):
        for key, each in value.items():
            _refuse_secrets(each, (*place, key), said)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _refuse_secrets(each, (*place, index), said)
    elif isinstance(value, str) and SECRET.search(value):
        raise UsageError(
            f"{said.origin(place)}: {dotted(place)} looks like a key or a password (not shown)",
            rule="a recipe is written to the run directory, so it holds no secrets",
            remedy="set it in the environment, for example HF_TOKEN",
        )


def _locate_paths(recipe: Recipe, said: Said, path: Path | None) -> Recipe:
    update: dict[str, Any] = {}
    for key in SOURCE_LISTS:
        sources: tuple[DatasetSource, ...] = getattr(recipe, key)
        update[key] = tuple(
            source.model_copy(
                update={
                    "path": locate.locate_dataset(
                        source.path, _at((key, index, "path"), source.path, said, path)
                    )
                }
            )
            for index, source in enumerate(sources)
        )
    if recipe.replay is not None:
        at = _at(("replay", "path"), recipe.replay.path, said, path)
        update["replay"] = recipe.replay.model_copy(
            update={"path": locate.locate_dataset(recipe.replay.path, at)}
        )
    if recipe.forgetting is not None:
        update["forgetting"] = _locate_probes(recipe.forgetting, said, path)
    update["stages"] = tuple(
        {key: _locate_in_stage(number, key, value, said, path) for key, value in stage.items()}
        for number, stage in enumerate(recipe.stages)
    )
    for key in ("model", "tokenizer"):
        value = getattr(recipe, key)
        update[key] = value and locate.locate_model(value, _at((key,), value, said, path))
    if recipe.chat_template is not None:
        at = _at(("chat_template",), recipe.chat_template, said, path)
        update["chat_template"] = locate.locate_template(recipe.chat_template, at)
    return recipe.model_copy(update=update)


def _locate_probes(guard: Forgetting, said: Said, path: Path | None) -> Forgetting:
    """The guard with the paths of its probes found; burnish's own have names, no paths."""
    found = []
    for index, probe in enumerate(guard.probes):
        at = _at(("forgetting", "probes", index, "path"), probe.path, said, path)
        place = probe.path if probe.is_own else locate.locate_dataset(probe.path, at)
        found.append(probe.model_copy(update={"path": place}))
    return guard.model_copy(update={"probes": tuple(found)})


def _locate_in_stage(number: int, key: str, value: Any, said: Said, path: Path | None) -> Any:
    """A stage's value with its paths found."""
    if isinstance(value, dict) and key == "replay":
        return _locate_in_stage(number, "datasets", [value], said, path)[0]
    if key not in SOURCE_LISTS:
        return value
    return [
        {
            **source,
            "path": locate.locate_dataset(
                source["path"], _at(("stages", number, key), source["path"], said, path)
            ),
        }
        for source in value
    ]


def _at(place: Place, value: str, said: Said, path: Path | None) -> locate.Place:
    origin = said.origin(place)
    here = Path.cwd()
    beside = path.parent.absolute() if path else here
    folders = (beside, here) if path and origin.startswith(str(path)) else (here, beside)
    return locate.Place(tuple(dict.fromkeys(folders)), f"{origin}: {dotted(place)}: {value!r}")


def _origins(recipe: Recipe, said: Said) -> dict[str, str]:
    origins = {key: _origin(key, recipe, said) for key in Recipe.model_fields}
    for place in _source_places(recipe):
        origins[dotted(place)] = said.origin(place) if _was_said(place, said) else "default"
    return origins


def _origin(key: str, recipe: Recipe, said: Said) -> str:
    if said.values.get(key) is not None or (key == "max_grad_norm" and key in said.values):
        return said.origin((key,))
    if key not in FOLLOWS:
        return "default"
    leader = getattr(recipe, FOLLOWS[key])
    return "default" if leader is None else f"default for {FOLLOWS[key]}: {leader}"


def _source_places(recipe: Recipe) -> Iterator[tuple[str, int, str]]:
    for key in SOURCE_LISTS:
        for index in range(len(getattr(recipe, key))):
            for name in DatasetSource.model_fields:
                yield (key, index, name)


def _was_said(place: tuple[str, int, str], said: Said) -> bool:
    key, index, name = place
    return said.values[key][index].get(name) is not None
