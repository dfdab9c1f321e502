"""`chat.json`: which template a model was trained with, so that it is served with no other.

    {"template_sha256": "5f1c...", "date": "2026-11-20", "chat_template_kwargs": {}, "stop_ids": [2, 384]}

It lies beside the weights in `final/` and `adapter/`. The hash is of the template with its special tokens, variables
and, where it prints one, its date.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from burnish.chat.template import ChatTemplate
from burnish.errors import DataError

CHAT_JSON = "chat.json"


@dataclass(frozen=True, slots=True)
class ChatIdentity:
    """What training and serving must have in common; `template_sha256` is None for plain text."""

    template_sha256: str | None
    date: str | None
    chat_template_kwargs: dict[str, Any]
    stop_ids: Sequence[int]

    @property
    def settings(self) -> dict[str, Any]:
        """The date and variables of training, as `ChatTemplate` takes them."""
        date = self.date and datetime.date.fromisoformat(self.date)
        return {"date": date or None, "chat_template_kwargs": self.chat_template_kwargs}

    def require(self, template: ChatTemplate, name: str) -> None:
        """DataError unless `template` is the one that `name` was trained with."""
        if template.sha256 != self.template_sha256:
            raise DataError(
                f"{name} was trained with chat template {short(self.template_sha256)}, and now has "
                f"{short(template.sha256)}",
                rule="a model is asked in the very template it was trained in",
                remedy="restore its chat template and special tokens, or name a template: chat_template=FILE.jinja",
            )

    def write(self, directory: Path) -> None:
        """Write `chat.json`."""
        (directory / CHAT_JSON).write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n")


def read_identity(directory: Path) -> ChatIdentity | None:
    """What `chat.json` says; None where there is none."""
    path = directory / CHAT_JSON
    if not path.is_file():
        return None
    try:
        fields = orjson.loads(path.read_bytes())
        identity = ChatIdentity(**fields)
        if not isinstance(identity.chat_template_kwargs, dict):
            raise ValueError(f"chat_template_kwargs {identity.chat_template_kwargs!r}")
        _ = identity.settings, [int(stop) for stop in identity.stop_ids]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: {error}",
            rule="chat.json is what burnish wrote beside the weights",
            remedy="restore the file; without it the model is asked in whatever template lies there",
        ) from None
    return identity


def short(sha256: str | None) -> str:
    """A hash as people read it, `none` for no template."""
    return sha256[:12] if sha256 else "none"
