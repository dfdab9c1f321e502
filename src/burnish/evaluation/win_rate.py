"""Win rates against a reference, as preference benchmarks define them, from a table of preferences.

index,alpaca-7b,vicuna-7b      1 = the reference wins, 2 = the model wins; between them, the judge's share for it
0,1.0,1.98                     1.5 or 0 = a draw; empty = not judged, and left out of that model's mean
1,0,1.5                        win rate = mean(preference - 1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from burnish.data.files import name_of
from burnish.errors import DataError, UsageError
from burnish.evaluation.annotated import is_annotations, read_annotations
from burnish.evaluation.intervals import mean_interval, paired_interval
from burnish.evaluation.length_control import LengthControl, Lengths, control_length, find_controls
from burnish.evaluation.table import Table, bare_name, find_column, read_table, rows_as
from burnish.evaluation.votes import ROUNDING

Array = NDArray[np.float64]

REFERENCE_WORDS = ("reference", "baseline", "ref")


@dataclass(frozen=True, slots=True)
class WinRate:
    """One model's rates and interval in 0..1; None where there is nothing to compute them from."""

    win_rate: float | None
    interval: tuple[float, float] | None
    length_controlled: float | None
    num_judged: int

    def in_percent(self) -> dict[str, float | list[float] | None]:
        """As `burnish winrate --json` prints it."""
        return {
            "win_rate": _percent(self.win_rate),
            "ci": [100 * bound for bound in self.interval] if self.interval else None,
            "length_controlled_win_rate": _percent(self.length_controlled),
        }


@dataclass(frozen=True, slots=True)
class Standings:
    """Win rates by model in the file's order, and what is to be said of single models."""

    rates: dict[str, WinRate]
    notes: dict[str, str]
    wins: dict[str, Array]

    def difference(self, model: str, other: str) -> tuple[float, tuple[float, float]]:
        """How much more a model wins than another on the prompts that both were judged on, with its interval."""
        both = self.wins[model] - self.wins[other]
        both = both[np.isfinite(both)]
        return float(both.mean()) if len(both) else float("nan"), paired_interval(both)


def wins_of(preferences: Array, *, place: str = "preferences") -> Array:
    """Preferences as shares won: 1 -> 0, 2 -> 1, 0 (a draw) -> 0.5; DataError where one is none of these."""
    drawn = np.where(preferences == 0, 1.5, preferences)
    outside = np.isfinite(drawn) & ((drawn < 1 - ROUNDING) | (drawn > 2 + ROUNDING))
    if outside.any():
        row, *_ = np.argwhere(outside)[0]
        raise DataError(
            f"{place}: prompt {row + 1} has the preference {preferences[outside][0]:g}",
            rule="a preference is 1 (the reference wins) to 2 (the model wins), 0 or 1.5 for a draw, or empty",
            remedy="add 1 to shares of 0..1, or correct the cell",
        )
    return np.asarray(np.clip(drawn, 1, 2) - 1)


def standings(
    preferences: Path,
    *,
    lengths: Path | None = None,
    difficulty: Path | None = None,
    reference: str | None = None,
) -> Standings:
    """Win rates of all models in a file of preferences; with lengths, the length-controlled ones as well.

    AlpacaEval annotations hold the answers themselves, and so their lengths.
    """
    written: Table | None = None
    if is_annotations(preferences):
        table, written, reference = read_annotations(preferences, reference=reference)
    else:
        table = read_table(preferences)
    written = written if lengths is None else read_table(lengths)
    models = list(table.numbers)
    if not models:
        raise DataError(
            f"{name_of(preferences)}: no column of numbers",
            rule="each model is a column of preferences, and each row a prompt",
            remedy="check that the right file was given",
        )
    if difficulty is not None and written is None:
        raise UsageError(
            "--difficulty without --lengths",
            rule="difficulty is a part of the length-controlled rate, which needs lengths",
            remedy="add --lengths FILE.csv",
        )
    wins = wins_of(table.matrix(models), place=name_of(preferences))
    notes: dict[str, str] = {}
    controlled = np.full(len(models), np.nan)
    if written is not None:
        found, notes = _controlled(table, models, wins, written, difficulty, reference)
        controlled = found.rates
    return Standings(
        {model: _win_rate(wins[:, m], controlled[m]) for m, model in enumerate(models)},
        notes,
        {model: wins[:, m] for m, model in enumerate(models)},
    )


def _win_rate(wins: Array, controlled: float) -> WinRate:
    judged = wins[np.isfinite(wins)]
    if not len(judged):
        return WinRate(None, None, None, 0)
    length_controlled = float(controlled) if np.isfinite(controlled) else None
    return WinRate(float(judged.mean()), mean_interval(judged), length_controlled, len(judged))


def _controlled(
    table: Table,
    models: list[str],
    wins: Array,
    written: Table,
    difficulty: Path | None,
    reference: str | None,
) -> tuple[LengthControl, dict[str, str]]:
    rows = rows_as(table, written)
    column = reference_column(written, models, reference, wins)
    unknown = np.full(table.num_rows, np.nan)
    own = {model: find_column(written, wanted=model) for model in models}
    of_models = [unknown if (name := own[model]) is None else written.numbers[name][rows] for model in models]
    means = {
        model: float(np.nanmean(wins[:, m])) if np.isfinite(wins[:, m]).any() else 0.0
        for m, model in enumerate(models)
    }
    found = control_length(
        wins,
        Lengths(written.numbers[column][rows], np.column_stack(of_models)),
        difficulty=None if difficulty is None else _difficulty(table, difficulty),
        controls=find_controls(models, bare_name(column), means),
    )
    notes = {models[m]: note for m, note in found.notes.items()}
    notes |= {
        model: f"{name_of(written.path)} has no column for it"
        for model, place in own.items()
        if place is None
    }
    return found, notes


def reference_column(table: Table, models: list[str], wanted: str | None, wins: Array) -> str:
    """Which column of the lengths is the reference's."""
    if wanted is not None and (named := find_column(table, wanted=wanted)) is not None:
        return named
    own = {find_column(table, wanted=model) for model in models}
    others = [name for name in table.numbers if name not in own]
    called = [name for name in others if bare_name(name).lower().startswith(REFERENCE_WORDS)]
    drawing = [
        model for m, model in enumerate(models) if (wins[:, m] == 0.5).all() and model in table.numbers
    ]
    told = [name for name in others if _has_controls(bare_name(name), models, wins)]
    for candidates in (called, others, drawing, told):
        if wanted is None and len(candidates) == 1:
            return candidates[0]
    raise UsageError(
        f"{name_of(table.path)}: no single column is the reference's: {', '.join(others[:5]) or 'none left over'}"
        if wanted is None
        else f"{name_of(table.path)}: no column {wanted!r}",
        rule="the lengths have a column for each model, and one for the reference: `reference`, or its name",
        remedy="name it: --reference COLUMN",
    )


def _has_controls(stem: str, models: list[str], wins: Array) -> bool:
    """Whether a model told to be brief loses to it and one told to be wordy wins: they are the reference's own."""
    shares = [
        float(np.nanmean(wins[:, models.index(f"{stem}_{ending}")]))
        for ending in ("concise", "verbose")
        if f"{stem}_{ending}" in models
    ]
    return len(shares) == 2 and shares[0] < 0.5 < shares[1]


def _difficulty(table: Table, path: Path) -> Array:
    given = read_table(path)
    called = [name for name in given.numbers if "difficulty" in name.lower()]
    columns = called if len(called) == 1 else list(given.numbers)
    if len(columns) != 1:
        raise DataError(
            f"{name_of(path)}: {len(given.numbers)} columns of numbers",
            rule="the difficulty of prompts is one number a row, in a column with `difficulty` in its name",
            remedy="rename the column, or leave the others out",
        )
    return given.numbers[columns[0]][rows_as(table, given)]


def _percent(rate: float | None) -> float | None:
    return None if rate is None else 100 * rate


def ranked(rates: Mapping[str, WinRate]) -> list[str]:
    """Models from best to worst, by the length-controlled rate where all have one."""
    controlled = all(rate.length_controlled is not None for rate in rates.values())

    def merit(model: str) -> float:
        value = rates[model].length_controlled if controlled else rates[model].win_rate
        return -1.0 if value is None else value

    return sorted(rates, key=merit, reverse=True)
