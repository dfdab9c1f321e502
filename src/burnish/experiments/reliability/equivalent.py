"""Mutants that compute what the module computes, each with the reason: no test could tell them apart."""

from __future__ import annotations

EQUIVALENT: dict[str, dict[str, str]] = {}
"""Module, then `function: before -> after` as `mutants` says it, then why."""
