"""What the user said, before it is checked: plain values, and for each place where it was said.

train.yaml                      values   {"model": "marble", "datasets": [{"path": "a.jsonl"}]}
1  model: marble                origins  ("model",) -> "train.yaml:1"
2  datasets: a.jsonl                     ("datasets", 0, "path") -> "train.yaml:2"
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pydantic import BaseModel

from burnish.errors import UsageError
from burnish.recipe.document import Document, Place, parse_document
from burnish.recipe.schema import EITHER_OR
from burnish.recipe.words import SECRET, show

SOURCE_LISTS = ("datasets", "val_datasets")


@dataclass
class Said:
    """Values as said; `origins` and, for YAML, `texts` (the scalar as written) by place."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)

    def put(self, place: Place, document: Document, origin: str) -> None:
        """Set one place to a parsed value, in place of all that was said there before."""
        self._forget(place)
        container: Any = self.values
        for step in place[:-1]:
            container = container[step]
        container[place[-1]] = document.value
        self.origins[place] = origin
        for inner, text in document.texts.items():
            self.texts[(*place, *inner)] = text
        if place[0] in SOURCE_LISTS:
            self._list_sources(str(place[0]))

    def origin(self, place: Place) -> str:
        """Where a place, or the nearest one around it, was said."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.origins:
                return self.origins[place[:length]]
        return "default"

    def step(self, container: Any, key: str, origin: str) -> str | int:
        """One step of a dotted override: a key of a mapping, or the number of a list's item."""
        if isinstance(container, dict):
            return key
        if isinstance(container, list) and key.isdigit() and int(key) < len(container):
            return int(key)
        raise UsageError(
            f"{origin}: nothing at {key!r}",
            rule="a dotted override goes through keys and item numbers that are there, counted from 0",
            remedy="say for example datasets.0.weight=2",
        )

    def give_way_to(self, key: str, origin: str) -> None:
        """Drop what a recipe file says the other way round: `max_steps=60` replaces its `num_epochs`."""
        others = {other for pair in EITHER_OR if key in pair for other in pair - {key}}
        for other in others:
            if self.origin((other,)) != origin:  # both as overrides is a contradiction, and stays one
                self.values.pop(other, None)
                self._forget((other,))

    def _forget(self, place: Place) -> None:
        for table in (self.origins, self.texts):
            for old in [each for each in table if each[: len(place)] == place]:
                del table[old]

    def _list_sources(self, key: str) -> None:
        """Give `a.jsonl`, `{path: a.jsonl}` and lists of both the one shape that overrides can address."""
        value = self.values[key]
        entries = value if isinstance(value, list) else [value]
        for index, entry in enumerate(entries):
            place: Place = (key, index) if isinstance(value, list) else (key,)
            if isinstance(entry, str):
                entries[index] = {"path": entry}
                self.texts.pop(place, None)
        if value is not None:
            self.values[key] = entries


def said_in(document: Document, name: str) -> Said:
    """Everything that a recipe file says."""
    if not isinstance(document.value, dict):
        saw = "nothing in it" if document.value is None else f"{show(document.value)}, not `key: value` lines"
        raise UsageError(
            f"{name}: {saw}",
            rule="a recipe is a mapping that names at least a model and datasets",
            remedy="write two lines: `model: marble` and `datasets: data/train.jsonl`",
        )
    origins = {place: f"{name}:{line}" for place, line in document.lines.items() if place}
    said = Said(document.value, origins, dict(document.texts))
    for key in SOURCE_LISTS:
        if key in said.values:
            said._list_sources(key)
    return said


def add_overrides(said: Said, overrides: Mapping[str, Any] | Iterable[str], origin: str) -> None:
    """Lay overrides over what was said: a mapping of values, or `key=value` words whose values are YAML."""
    if isinstance(overrides, Mapping):
        pairs = [(str(key), Document(_plain(value))) for key, value in overrides.items()]
    else:
        pairs = [_parse(word) for word in overrides]
    for dotted, document in pairs:
        if document.value is not None:
            said.give_way_to(dotted, origin)
        place: Place = ()
        container: Any = said.values
        for key in dotted.split("."):
            place = (*place, said.step(container, key, f"{origin} {dotted}"))
            if isinstance(container, dict) and container.get(key) is None and dotted.startswith(f"{key}."):
                container[key] = {}
                said.origins[place] = origin
            container = container.get(key) if isinstance(container, dict) else container[int(key)]
        said.put(place, document, origin)


def _parse(word: str) -> tuple[str, Document]:
    key, equals, text = word.partition("=")
    if not equals or not key.strip() or SECRET.search(key):
        raise UsageError(
            f"override {show(word)}",
            rule="an override is key=value, without spaces around the equals sign",
            remedy="say for example learning_rate=1e-4",
        )
    return key.strip(), parse_document(text, f"override {key.strip()}")


def _plain(value: Any) -> Any:
    """Plain YAML values from what Python callers pass: paths, tuples, enums, sources."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(exclude_unset=True))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
