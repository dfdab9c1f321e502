"""YAML text to plain values, with the line of every key: the part of YAML that has no surprises.

    model: no          # 'no' stays a word: only true and false are booleans (YAML 1.2, not 1.1)
    learning_rate: 2e-4   # a number, where YAML 1.1 reads a string
    seed: 010          # ten, not eight

Refused, with the line: tags (`!!python/...`), duplicate keys, keys that are not text, more than 1 MB,
deep nesting, and aliases that multiply (the "billion laughs").
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from burnish.errors import UsageError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 20_000

Place = tuple[str | int, ...]
"""Where a value stands: `("datasets", 1, "weight")`."""


@dataclass(frozen=True)
class Document:
    """The values of a YAML text; for each place its 1-based line, and each scalar as it was written."""

    value: Any
    lines: dict[Place, int] = field(default_factory=dict)
    texts: dict[Place, str] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of YAML 1.2, no tags and bounded depth."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's way)
    depth = 0
    num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node; this is where tags and depth are seen before anything is built."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            _fail(event.start_mark, f"the tag {event.tag!r}")
        if self.depth >= MAX_DEPTH:
            _fail(event.start_mark, f"more than {MAX_DEPTH} levels of nesting")
        self.num_nodes += 1
        if self.num_nodes > MAX_VALUES:
            _fail(event.start_mark, f"more than {MAX_VALUES:,} values")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))

RESOLVERS = _Loader.yaml_implicit_resolvers


def read_document(path: Path) -> Document:
    """Read a YAML file of at most 1 MB."""
    # os.path answers no where Path raises: for a name that is too long, or holds NUL
    if not os.path.exists(path):  # noqa: PTH110
        folder = path.parent
        near = sorted(each.name for each in folder.glob("*.y*ml"))[:5] if os.path.isdir(folder) else []  # noqa: PTH112
        raise UsageError(
            f"{path}: no such file",
            rule="a recipe is a YAML file",
            remedy=f"name one that is there: {', '.join(near)}" if near else "check the path of the recipe",
        )
    if not path.is_file():
        raise UsageError(
            f"{path}: not a regular file",
            rule="a recipe is a YAML file",
            remedy="give the path of the file itself",
        )
    with path.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise UsageError(
            f"{path}: larger than {MAX_BYTES:,} bytes",
            rule="a recipe is a small YAML file",
            remedy="put rows into a data file, and its path under `datasets`",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: byte {error.start} is not UTF-8",
            rule="a recipe is YAML text in UTF-8",
            remedy="save the file as UTF-8",
        ) from error
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """Parse YAML text; `name` is what errors call it."""
    document = Document(None)
    try:
        loader = _Loader(text)
        loader.name = name
        node = loader.get_single_node()
        value = _Builder(loader, document).build(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(
            f"{name}{line}: {error.problem or error.context}",
            rule="a recipe is YAML: `key: value` lines, lists as `- item`, indented with spaces",
            remedy="correct the line, or put the value in quotes",
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(
            f"{name}: {' '.join(str(error).split())}",
            rule="a recipe is YAML text without control characters",
            remedy="remove the character",
        ) from error
    return Document(value, document.lines, document.texts)


class _Builder:
    """Turns nodes into values, and counts them, so that aliases cannot multiply without end."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self.loader = loader
        self.document = document
        self.num_values = 0

    def build(self, node: yaml.Node, place: Place) -> Any:
        self.num_values += 1
        if self.num_values > MAX_VALUES or len(place) > MAX_DEPTH:
            _fail(node.start_mark, "aliases or lists that grow too large")
        self.document.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, place))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*place, index)) for index, child in enumerate(node.value)]
        self.document.texts[place] = node.value
        return self._scalar(node)

    def _pairs(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, Any]]:
        first_seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                _fail(key_node.start_mark, "a key that is not a plain word")
            if key in first_seen:
                _fail(key_node.start_mark, f"the key {key!r} a second time (first on line {first_seen[key]})")
            first_seen[key] = line
            self.document.lines[(*place, key)] = line
            yield key, self.build(value_node, (*place, key))

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag.endswith(":int"):
            if len(node.value) > 30:
                _fail(node.start_mark, f"a number of {len(node.value)} digits")
            return int(node.value)
        return self.loader.construct_object(node)


def _fail(mark: yaml.Mark, saw: str) -> NoReturn:
    raise UsageError(
        f"{mark.name}:{mark.line + 1}: {saw}",
        rule="a recipe is plain YAML: each key once, no tags, few levels, at most 20,000 values",
        remedy="write the value out plainly",
    )
