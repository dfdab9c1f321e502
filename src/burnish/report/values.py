"""What a file says, taken for no more than it is: a number where a number stands, else None.

A run directory may be half written or edited by hand. Whoever draws it asks here, and never meets a text where it
expects a number, a number that is not finite, or a list that is a mapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 1e15
"""A number past this is none that a run writes, and arithmetic with it would end in infinity."""

MAX_TEXT = 4_000
"""Characters of one text that the page shows."""


def number(value: Any) -> float | None:
    """A finite number; truth values are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < LARGEST and math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """A number that counts something."""
    found = number(value)
    return int(found) if found is not None else None


def text(value: Any, default: str = "") -> str:
    """A text, or a number as text; too long ones are cut and say so."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return default
    shown = str(value)
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]} ... ({len(shown):,} characters)"


def mapping(value: Any) -> dict[str, Any]:
    """A mapping with text keys, or an empty one."""
    return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list."""
    return [mapping(each) for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def numbers(value: Any) -> list[float | None]:
    """The items of a list, each as a number or None."""
    return [number(each) for each in value] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """The items of a list as texts."""
    return [text(each) for each in value] if isinstance(value, list) else []


def deep(value: Any, *keys: str) -> Any:
    """What stands under keys within keys; None where one of them is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
