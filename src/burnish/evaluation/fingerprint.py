"""A model's name with a hash of its weights: `marble@5d1f0c2a9b3e`, so that what is kept of one is never another's."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from burnish.models.assistant import finished
from burnish.models.locate import locate

PARTS = ("*.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "chat.json")
_PIECE = 1 << 22


def fingerprint(name: str) -> str:
    """The last part of the name, and 12 digits for the bytes of weights, config, tokenizer and template."""
    directory = locate(finished(name))
    digest = blake2b(digest_size=6)
    for file in sorted({file for pattern in PARTS for file in directory.glob(pattern)}):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
    short = Path(name).resolve().name if Path(name).is_dir() else name
    return f"{short}@{digest.hexdigest()}"
