"""The key of a certificate: hashes of all that decides which tokens a recipe feeds and grades.

    {"datasets": [{"data/train.jsonl": "9f2c..."}], "template": "5f1c...", "tokenizer": "77ab...",
     "options": {"max_length": 2048, ...}, "code": "c01d...", "versions": {"tokenizers": "0.22.1", ...}}

One byte of data, one character of the template, one option, and the key is another. The number of epochs, the learning
rate or the batch size do not touch it.
"""

from __future__ import annotations

import hashlib
import uuid
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

import burnish
from burnish.data.files import find_files, name_of
from burnish.data.read import is_on_hub
from burnish.data.store import sha256_of
from burnish.models.tokenizer import ChatTokenizer
from burnish.recipe.schema import DatasetSource, Recipe

FORMAT = 1
"""The form of certificates and of what lies beside them; another number is another key."""

KEYS = (
    "datasets",
    "val_datasets",
    "replay",
    "val_set_size",
    "max_length",
    "on_too_long",
    "on_bad_row",
    "seed",
)
"""The recipe's keys that decide what is encoded, beside those of the template and the encoder."""

SAMPLING = frozenset({"mix", "epochs", "cap", "group", "share"})
"""What a recipe says of a source that decides how often its rows come, not what they are."""

_CODE = ("chat", "data", "types.py")
_PACKAGES = ("burnish", "tokenizers", "jinja2")


def key_parts(recipe: Recipe, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """All that a certificate hangs on, each part as a hash or as it was said.

    `tokenizer` is the one that conversations would be encoded with, whether or not the data has any.
    """
    said = recipe.model_dump(mode="json")
    spec = tokenizer.spec
    return {
        "format": FORMAT,
        "datasets": [_files(source) for source in recipe.sources],
        "template": tokenizer.identity.template_sha256,
        "tokenizer": hashlib.sha256(spec.tokenizer_json.encode()).hexdigest(),
        "options": {key: _without_sampling(said[key]) for key in KEYS}
        | {"eos_token": spec.eos_token, **tokenizer.options},
        "code": code_hash(),
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _without_sampling(said: Any) -> Any:
    if isinstance(said, list):
        return [_without_sampling(each) for each in said]
    return (
        {key: each for key, each in said.items() if key not in SAMPLING} if isinstance(said, dict) else said
    )


def key_of(parts: dict[str, Any]) -> str:
    """The key itself: the hash of its parts."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@cache
def code_hash() -> str:
    """The hash of the sources that read, render, encode and grade."""
    package = Path(burnish.__file__).parent
    found = hashlib.sha256()
    for place in (package / name for name in _CODE):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return found.hexdigest()


def _files(source: DatasetSource) -> dict[str, str]:
    """A source's files by name with the hash of their bytes; of a hub dataset the revision."""
    if is_on_hub(source.path):
        from burnish.data.hub import hub_revision  # importing `datasets` takes most of a second

        # Where the hub does not say which revision it gives, no certificate can be used again.
        return {source.path: hub_revision(source.path) or f"unknown-{uuid.uuid4().hex}"}
    return {name_of(path): sha256_of(path) for path in find_files(source.path)}
