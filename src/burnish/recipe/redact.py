"""Secrets do not reach a file: neither the values of the environment's, nor what looks like a token or a password.

{"path": "https://me:hunter2@host/x"}    ->  https://[redacted]@host/x
hf_abcdefghijklmnopqrstuvwxyz            ->  [redacted]
whatever $WANDB_API_KEY holds            ->  [redacted]
"""

from __future__ import annotations

import json
import os
import re

from burnish.errors import UsageError
from burnish.recipe.load import LoadedRecipe

INSTEAD = b"[redacted]"
_SECRET_NAME = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL|PRIVATE_KEY", re.IGNORECASE
)
SHORTEST = 8
"""A shorter value of such a variable is no secret that can be looked for: it would be found in everything."""
_NO_NUMBER = re.compile(r"[A-Za-df-z]")

_TOKENS = re.compile(
    rb"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    rb"|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,})"
)
_USERINFO = re.compile(rb"(?<=://)[^/\s\"'@]+:[^/\s\"'@]+(?=@)")


def redacted(content: bytes) -> bytes:
    """The same bytes without the secrets in them."""
    for value in environment_secrets():
        content = content.replace(value, INSTEAD)
    return _USERINFO.sub(INSTEAD, _TOKENS.sub(INSTEAD, content))


def environment_secrets() -> list[bytes]:
    """Values of variables whose names say that they are secret, the longest first."""
    found = {
        os.fsencode(value)
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= SHORTEST and _NO_NUMBER.search(value)
    }
    return sorted(found, key=len, reverse=True)


def refuse_secrets(loaded: LoadedRecipe) -> None:
    """UsageError where a recipe holds a secret: it is copied into the run, and a changed copy is another recipe."""
    for key, value in loaded.recipe.model_dump(mode="json").items():
        said = json.dumps(value).encode()
        if redacted(said) != said:
            raise UsageError(
                f"{key} holds a secret (a token, a password in an address, or the value of a variable that is one)",
                rule="a recipe is copied into the run directory, and no secret is written there",
                remedy="give it by the environment: HF_TOKEN for the hub, WANDB_API_KEY for wandb",
            )
