"""Packages that only some verbs need: imported when they are, and named where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from burnish.errors import UsageError


def require(module: str, *, extra: str) -> Any:
    """The module; UsageError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed",
            rule=f"this needs burnish's extra `{extra}`",
            remedy=f"pip install 'burnish[{extra}]'",
        ) from error
