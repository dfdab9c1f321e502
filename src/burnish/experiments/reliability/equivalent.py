"""Mutants that compute what the module computes, each with the reason: no test could tell them apart."""

from __future__ import annotations

_ZIP = "both sides come from one list and are equally long; strict only says so aloud"
EQUIVALENT: dict[str, dict[str, str]] = {
    "burnish.data.pack": {
        "_lay: True -> False": _ZIP,
        "_graded: True -> False": _ZIP,
    },
}
"""Module, then `function: before -> after` as `mutants` says it, then why."""
