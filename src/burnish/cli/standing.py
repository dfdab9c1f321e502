"""Evaluations as people read them: a table of figures with their intervals, and runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.cli.output import Output
from burnish.evaluation.evaluations import Compared
from burnish.evaluation.examination import Measured
from burnish.evaluation.figures import Difference, Figure, kind_of

COUNTED = {"loss", "perplexity", "bits_per_byte", "answer_tokens"}
"""Metrics that are no shares: printed as they are, the others in percent."""


def tell_measured(measured: Measured, output: Output) -> None:
    """One set: every metric of each model, how far they are apart, and what of the set was trained on."""
    for evaluation in measured.evaluations:
        output.emit(evaluation.as_dict())
    if output.as_json:
        return
    first = measured.evaluations[0]
    output.say(f"\n{first.dataset}: {first.rows:,} rows", style="bold")
    names = dict.fromkeys(name for one in measured.evaluations for name in one.metrics)
    columns = [
        "",
        *(one.model for one in measured.evaluations),
        *(["difference"] if measured.differences else []),
    ]
    rows = [
        [
            name,
            *(_cell(name, one.metrics.get(name)) for one in measured.evaluations),
            *([_difference(name, measured.differences.get(name))] if measured.differences else []),
        ]
        for name in names
    ]
    output.table(columns, rows)
    _tell_sources(measured, output)
    if first.contamination is not None:
        found = first.contamination
        where = f" (first: {', '.join(found.first)})" if found.first else ""
        output.say(
            f"contamination: {found.rows} of {found.of} rows share {found.ngram} words with a training row{where}",
            style="yellow" if found.rows else "dim",
        )
    for note in dict.fromkeys(note for one in measured.evaluations for note in one.notes):
        output.say(f"note: {note}", style="dim")


def _tell_sources(measured: Measured, output: Output) -> None:
    first = measured.evaluations[0]
    if not first.by_source:
        return
    names = [name for name in first.metrics if "@" not in name and kind_of(name) != "perplexity"]
    rows = [
        [source, *(_cell(name, figures.get(name)) for name in names)]
        for source, figures in first.by_source.items()
    ]
    output.table([f"{first.model}, by source", *names], rows)


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if kind_of(name) in COUNTED else f"{value:.1%}"


def _cell(name: str, figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "-"
    if figure.low is None:
        return _number(name, figure.value)
    return f"{_number(name, figure.value)}  [{_number(name, figure.low)}, {_number(name, figure.high)}]"


def _difference(name: str, found: Difference | None) -> str:
    if found is None:
        return ""
    sign = "+" if found.value >= 0 else ""
    words = f"{sign}{_number(name, found.value)}  [{_number(name, found.low)}, {_number(name, found.high)}]"
    return words if found.clear else f"{words}  within chance"


def tell_comparison(columns: Sequence[str], rows: Sequence[Compared], output: Output) -> None:
    """Runs side by side: the best of a row is starred, and starred twice where no interval touches its own."""
    for row in rows:
        cells = dict(zip(columns, row.cells, strict=True))
        output.emit({"dataset": row.dataset, "metric": row.metric, "values": cells, "clear": row.clear})
    if output.as_json:
        return
    for dataset in dict.fromkeys(row.dataset for row in rows):
        mine = [row for row in rows if row.dataset == dataset]
        output.say(f"\n{dataset}", style="bold")
        output.table(["", *columns], [_compared(row) for row in mine])
        if not all(row.same_rows for row in mine):
            output.say(
                "note: measured on different numbers of rows; intervals say what that costs", style="dim"
            )
    output.say("* best   ** best, and no other interval touches its own", style="dim")


def _compared(row: Compared) -> list[str]:
    found = [row.metric]
    for k, cell in enumerate(row.cells):
        star = "" if k != row.best else " **" if row.clear else " *"
        found.append(_stored(row.metric, cell) + star)
    return found


def _stored(name: str, cell: dict[str, Any] | None) -> str:
    if cell is None or cell.get("value") is None:
        return "-"
    words = _number(name, cell["value"])
    if cell.get("low") is None:
        return words
    return f"{words}  [{_number(name, cell['low'])}, {_number(name, cell['high'])}]"
