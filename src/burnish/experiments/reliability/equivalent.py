"""Mutants that compute what the module computes, each with the reason: no test could tell them apart."""

from __future__ import annotations

_ZIP = "both sides come from one list and are equally long; strict only says so aloud"
_PART = "how much is done at a time, not what is done"
EQUIVALENT: dict[str, dict[str, str]] = {
    "burnish.data.pack": {
        "_lay: True -> False": _ZIP,
        "_graded: True -> False": _ZIP,
    },
    "burnish.losses.cross_entropy": {
        "module: 256 -> 257": _PART,
        "module: 2048 -> 2049": _PART,
        "module: 2 -> 3": _PART,
        "module: 20 -> 21": _PART,
    },
    "burnish.checkpoint.tensors": {
        "module: 1 -> 2": _PART,
        "module: 24 -> 25": _PART,
        "read_hashed: 0 -> 1": "buffering=1: the same bytes come through a buffer",
    },
}
"""Module, then `function: before -> after` as `mutants` says it, then why."""
