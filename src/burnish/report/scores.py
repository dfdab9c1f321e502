"""Evaluations put side by side: for each set of questions, each metric, what each model reached, and the difference.

    {"dataset": "unseen", "metrics": {"exact_match": [Score("base", .003, ...), Score("tuned", .993, ...)]}}

Where both were asked the same rows, the file has the paired difference, and that is shown. Else two intervals become
one by adding the squares of their arms (Newcombe's way), as if the models had been asked different questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from burnish.report.collect import Run
from burnish.report.story import BASE_COLOUR, colour_of
from burnish.report.values import mapping, number, text
from burnish.report.words import decimal, percent, points, signed

NOT_SHARES = ("loss", "perplexity", "bits", "length", "nll", "tokens", "characters")
FIRST_OF_ALL = ("exact_match", "numeric", "accuracy", "choice", "instruction", "valid", "contains")
"""Which metric stands in the summary: the first of these that was measured."""


@dataclass(frozen=True, slots=True)
class Score:
    """What one model reached on one metric."""

    model: str
    colour: int
    value: float
    low: float | None
    high: float | None
    n: int
    is_share: bool
    higher_is_better: bool
    apart: tuple[float, float, float] | None = None  # from the base on the same rows, with its interval

    @property
    def words(self) -> str:
        """The value with its interval: "99.3% (97.6 to 99.8)"."""
        shown = percent(self.value) if self.is_share else decimal(self.value)
        if self.low is None or self.high is None:
            return shown
        ends = [f"{100 * end:.1f}" if self.is_share else decimal(end) for end in (self.low, self.high)]
        return f"{shown} ({ends[0]} to {ends[1]})"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One data set: its metrics by name, and the evaluations that they come from."""

    dataset: str
    metrics: dict[str, list[Score]]
    evaluations: list[dict[str, Any]]


def sheets(runs: Sequence[Run]) -> list[Sheet]:
    """Every data set that a run was evaluated on, with the latest evaluation of each model; the base once."""
    latest: dict[str, dict[str, tuple[dict[str, Any], int]]] = {}
    for run in runs:
        for evaluation in sorted(run.evaluations, key=_age):
            model = text(evaluation.get("model"), "model")
            base = model == "base"
            name = (
                model if base or len(runs) == 1 else run.name if model == "tuned" else f"{run.name} · {model}"
            )
            colour = BASE_COLOUR if base else colour_of(runs, run)
            latest.setdefault(text(evaluation.get("dataset"), "?"), {})[name] = (evaluation, colour)
    return [_sheet(dataset, found) for dataset, found in latest.items()]


def _age(evaluation: dict[str, Any]) -> tuple[str, float]:
    return text(evaluation.get("date")), number(evaluation.get("step")) or 0.0


def _sheet(dataset: str, found: dict[str, tuple[dict[str, Any], int]]) -> Sheet:
    metrics: dict[str, list[Score]] = {}
    ordered = sorted(found.items(), key=lambda item: item[0] != "base")
    for model, (evaluation, colour) in ordered:
        for name, metric in mapping(evaluation.get("metrics")).items():
            if score := score_of(name, mapping(metric), model, colour):
                told = mapping(mapping(evaluation.get("against_base")).get(name))
                ends = [number(told.get(key)) for key in ("value", "low", "high")]
                known = [end for end in ends if end is not None]
                if len(known) == len(ends) == 3 and model != "base":
                    score = replace(score, apart=(known[0], known[1], known[2]))
                metrics.setdefault(name, []).append(score)
    return Sheet(dataset, metrics, [{**evaluation, "model": model} for model, (evaluation, _) in ordered])


def score_of(name: str, metric: dict[str, Any], model: str, colour: int) -> Score | None:
    """A metric as the contract has it; None without a value."""
    value = number(metric.get("value"))
    if value is None:
        return None
    low, high = number(metric.get("low")), number(metric.get("high"))
    if metric.get("interval") == "none":
        low = high = None
    named = any(word in name.lower() for word in NOT_SHARES)
    share = metric.get("interval") == "wilson" or (not named and 0 <= value <= 1)
    better = metric.get("higher_is_better") is not False
    return Score(model, colour, value, low, high, int(number(metric.get("n")) or 0), share, better)


def difference(base: Score, other: Score) -> str:
    """The gain over the base with its interval, in points for shares."""
    gain = other.value - base.value
    write = points if base.is_share else signed
    unit = " points" if base.is_share else ""
    if other.apart is None and None in (base.low, base.high, other.low, other.high):
        return f"{write(gain)}{unit}"
    low, high = bounds(base, other)
    return f"{write(gain)}{unit} ({write(low)} to {write(high)})"


def bounds(base: Score, other: Score) -> tuple[float, float]:
    """The interval of the difference: the paired one where it was measured."""
    if other.apart is not None:
        return other.apart[1:]
    gain = other.value - base.value
    ends = [end if end is not None else 0.0 for end in (base.low, base.high, other.low, other.high)]
    down = math.hypot(other.value - ends[2], ends[1] - base.value)
    up = math.hypot(ends[3] - other.value, base.value - ends[0])
    return gain - down, gain + up


def verdict(base: Score, other: Score) -> str:
    """Whether the difference is one: better, worse, or not told apart."""
    if other.apart is None and None in (base.low, base.high, other.low, other.high):
        return "no interval"
    low, high = bounds(base, other)
    if low <= 0 <= high:
        return "not told apart"
    return "better" if (low > 0) == other.higher_is_better else "worse"


def main_metric(sheet: Sheet) -> str | None:
    """The metric that a summary names: a share of answers rather than a loss."""
    shares = [name for name, scores in sheet.metrics.items() if scores[0].is_share]
    for wanted in FIRST_OF_ALL:
        if found := next((name for name in shares if wanted in name), None):
            return found
    return shares[0] if shares else next(iter(sheet.metrics), None)
