"""From the name in a recipe to a model directory that is safe to open.

`marble` is the embedded base, a directory is itself, anything else is a hub id (fetched through huggingface_hub, or
found in its cache). Whatever it is, its JSON is read raw before transformers sees it: nothing in it may bring code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from burnish import marble
from burnish.errors import DataError

WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
BRINGS_CODE = (
    "auto_map",
    "model_file",
    "custom_pipelines",
    "custom_generate",
    "kernel_config",
    "use_kernels",
)
CHOOSES_CODE = ("attn_implementation", "experts_implementation")
"""In whose values transformers takes `owner/name` for kernels to fetch from the hub, and run."""

READ = ("config.json", "tokenizer_config.json", "adapter_config.json", "generation_config.json")


def locate(name: str) -> Path:
    """The directory of a model or tokenizer; DataError if there is none or if it wants to run code of its own."""
    directory = _directory(name)
    for file in READ:
        if (directory / file).is_file():
            _refuse_code(directory / file)
    return directory


def _directory(name: str) -> Path:
    if name == "marble":
        return marble.DIRECTORY
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"model {name!r}: no such directory, and the hub did not give it ({type(error).__name__})",
            rule="a model is `marble`, a directory, or the id of a hub repository that can be reached",
            remedy="check the spelling; behind no network, download it elsewhere and give the directory",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A model directory's JSON file; DataError where it is not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _not_a_model(path, str(error)) from error
    if not isinstance(value, dict):
        raise _not_a_model(path, f"it holds a {type(value).__name__}")
    return value


def _not_a_model(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: {why}",
        rule="a model directory has config.json, safetensors weights and a tokenizer, each whole",
        remedy="copy the model again",
    )


def _refuse_code(path: Path) -> None:
    for key, value in _entries(read_json(path)):
        chooses = any(word in key for word in CHOOSES_CODE) and not _is_plain(value)
        if (key in BRINGS_CODE and value) or chooses:
            raise DataError(
                f"{path}: {key} = {value!r}",
                rule="burnish runs no code that comes with a model; transformers' own classes only",
                remedy="use a model whose architecture transformers has, or remove the key if it is not needed",
            )


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON value with what it holds, however deep: a part of a model has a config of its own."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as one:
                yield from one.items()
                waiting.extend(one.values())
            case list() as many:
                waiting.extend(many)


def _is_plain(value: Any) -> bool:
    """Whether an implementation is one of transformers' own names (`sdpa`), or a mapping of parts to such."""
    if isinstance(value, dict):
        return all(_is_plain(one) for one in value.values())
    return value is None or (isinstance(value, str) and value.replace("_", "").isalnum())
