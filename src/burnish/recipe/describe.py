"""The recipe told back: every value with its origin, the JSON schema, and the reference page.

    model: marble                          # train.yaml:1
    learning_rate: 2.0e-05                 # default for adapter: full
    datasets:                              # train.yaml:2
    - path: /home/me/data/train.jsonl      # train.yaml:2
      split: train                         # default

`python -m burnish.recipe.describe > docs/recipe.md` writes the reference page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from typing import Any

import yaml

from burnish.recipe.document import RESOLVERS
from burnish.recipe.load import FOLLOWS, LoadedRecipe
from burnish.recipe.locate import absolute
from burnish.recipe.said import SOURCE_LISTS
from burnish.recipe.schema import OWN_PROBES, DatasetSource, Forgetting, Probe, Recipe, Replay, RopeScaling
from burnish.recipe.words import allowed

COMMENT_COLUMN = 40

INTRODUCTION = """\
# The recipe

A recipe is a flat YAML file. Two keys are enough, `model` and `datasets`; every other key has the default
below, and every default that was filled in is written with its origin to the run's `resolved.yaml`.

- A key that burnish does not know is an error that names the file, the line and the nearest key.
- A key that is null, or left empty, was not said; only `max_grad_norm: null` has a meaning of its own.
- `true` and `false` are the switches (`yes`, `no`, `on`, `off` do as well); `2e-4` is a number.
- A relative path in a recipe file is looked for beside the file first, then in the current directory; on the
  command line and from Python, in the current directory first.
- On the command line, `key=value` overrides the file: `lora_r=8`, `datasets.0.weight=2`,
  `chat_template_kwargs.enable_thinking=false`.
- A recipe holds no secrets: tokens and keys go into the environment.

This page is generated from `burnish/recipe/schema.py`; edit that file, then run
`python -m burnish.recipe.describe > docs/recipe.md`.
"""


def resolved_yaml(loaded: LoadedRecipe) -> str:
    """Every key with the value used and its origin; loads again, from any directory, to the same recipe."""
    lines = [line for key in Recipe.model_fields for line in _lines(key, loaded)]
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """The recipe as JSON schema, for editors and forms."""
    return Recipe.model_json_schema()


def reference_markdown() -> str:
    """The reference page: what each key takes, its default, its help."""
    schema = json_schema()
    source = schema["$defs"][DatasetSource.__name__]
    tables = (
        "## Keys",
        _table(schema, schema["$defs"]),
        "## Keys of a dataset",
        _table(source, schema["$defs"]),
        "## Keys of `replay`",
        _table(schema["$defs"][Replay.__name__], schema["$defs"]),
        "## Keys of `forgetting`",
        _table(schema["$defs"][Forgetting.__name__], schema["$defs"]),
        "## Keys of a probe",
        _table(schema["$defs"][Probe.__name__], schema["$defs"]),
        "## Keys of `rope_scaling`",
        _table(schema["$defs"][RopeScaling.__name__], schema["$defs"]),
    )
    return "\n".join((INTRODUCTION, "\n\n".join(tables), ""))


def _lines(key: str, loaded: LoadedRecipe) -> Iterator[str]:
    value = getattr(loaded.recipe, key)
    if key not in SOURCE_LISTS or not value:
        yield from _commented(_dump({key: _plain(key, loaded)}), loaded.origins[key])
        return
    yield from _commented(f"{key}:", loaded.origins[key])
    for index, source in enumerate(value):
        for name, each in source.model_dump(mode="json").items():
            each = absolute(each) if name == "path" else each
            bullet = "- " if name == "path" else "  "
            yield from _commented(bullet + _dump({name: each}), loaded.origins[f"{key}[{index}].{name}"])


def _plain(key: str, loaded: LoadedRecipe) -> Any:
    value = loaded.recipe.model_dump(mode="json")[key]
    if key in ("replay", "stages", "forgetting"):
        return _with_absolute_paths(value, own=OWN_PROBES if key == "forgetting" else ())
    return absolute(value) if key in ("model", "tokenizer", "chat_template") and value else value


def _with_absolute_paths(value: Any, *, own: Collection[str] = ()) -> Any:
    """Paths for a reader in any directory; what is in `own` is a name."""
    if isinstance(value, dict):
        return {
            key: _with_absolute_paths(each, own=own)
            if key != "path"
            else each
            if each in own
            else absolute(each)
            for key, each in value.items()
        }
    return [_with_absolute_paths(each, own=own) for each in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every text which our reader or a YAML 1.1 reader would take for a number."""


for _first, _rules in RESOLVERS.items():
    for _tag, _pattern in _rules:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_first])


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML folds U+2028 and U+0085 to line breaks unless they are escaped
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)


def _dump(value: dict[str, Any]) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    return text.rstrip("\n")


def _commented(text: str, origin: str) -> Iterator[str]:
    """The first line of a value carries the comment; what follows it (a nested list) is left alone."""
    first, *others = text.split("\n")
    printable = "".join(char if char.isprintable() else "?" for char in origin)
    yield f"{first.ljust(COMMENT_COLUMN - 1)} # {printable}"
    yield from others


def _table(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key, field in schema["properties"].items():
        takes = allowed(field, definitions).replace("|", "\\|")
        rows.append(f"| `{key}` | {takes} | {_default(key, field, schema)} | {field['description']} |")
    return "\n".join(rows)


def _default(key: str, field: dict[str, Any], schema: dict[str, Any]) -> str:
    if key in schema.get("required", ()):
        return "required"
    if key in FOLLOWS:
        return f"follows `{FOLLOWS[key]}`"
    return f"`{json.dumps(field['default'])}`" if "default" in field else "`{}`"


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
