"""Runs that an experiment may count."""

from __future__ import annotations

from burnish.training.directory import open_run
from burnish.training.run import RunResult


def uninterrupted(result: RunResult) -> RunResult:
    """A run that came to its end; KeyboardInterrupt where it was cut short: its losses are of another experiment."""
    if result.stopped_by == "interrupted":
        raise KeyboardInterrupt
    return result


def held_out_losses(result: RunResult) -> list[dict[str, float]]:
    """The loss of each held-out source, by its number, at each evaluation."""
    return [
        line["source_loss"] for line in open_run(result.run).lines("metrics.jsonl") if line["kind"] == "eval"
    ]
