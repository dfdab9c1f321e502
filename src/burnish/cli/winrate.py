"""`burnish winrate --preferences FILE.csv`: win rates of preferences, with intervals, and with length taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli.output import Output
from burnish.errors import UsageError
from burnish.evaluation.win_rate import Standings, WinRate, ranked, standings


def command(
    preferences: Annotated[
        Path,
        typer.Option(
            help="CSV, a column a model and a row a prompt: 1 = reference wins, 2 = model wins, 0 or 1.5 = draw; or "
            "AlpacaEval annotations (JSON), which hold the lengths as well."
        ),
    ],
    lengths: Annotated[
        Path | None, typer.Option(help="CSV of the answers' characters: the same models, and the reference.")
    ] = None,
    difficulty: Annotated[
        Path | None,
        typer.Option(help="CSV of the prompts' difficulty, where it is known; else it is fitted."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The reference's column in --lengths, where it is not plain.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="A model of the file: each other one's difference to it, paired.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object by model, in percent.")
    ] = False,
) -> None:
    """Win rates with intervals, and with --lengths what is left of them when length is taken out."""
    found = standings(preferences, lengths=lengths, difficulty=difficulty, reference=reference)
    if against is not None and against not in found.rates:
        raise UsageError(
            f"--against {against!r}",
            rule="--against names a model of the file",
            remedy=f"one of {', '.join(list(found.rates)[:8])}",
        )
    output = Output(as_json=as_json)
    for model, note in found.notes.items():
        output.warn(f"{model}: {note}")
    output.emit({model: _fields(found, model, against) for model in found.rates})
    if not as_json:
        output.table(
            (
                "model",
                "prompts",
                "win rate",
                "95%",
                "length-controlled",
                f"against {against}" if against else "",
            ),
            [_cells(found, model, against) for model in ranked(found.rates)],
        )


def _fields(found: Standings, model: str, against: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = found.rates[model].in_percent()
    if against is not None:
        difference, interval = found.difference(model, against)
        fields |= {"difference": 100 * difference, "difference_ci": [100 * bound for bound in interval]}
    return fields


def _cells(found: Standings, model: str, against: str | None) -> tuple[str, ...]:
    rate: WinRate = found.rates[model]
    low, high = rate.interval or (0.0, 1.0)
    if rate.win_rate is None:
        return model, "0", "-", "-", "-", ""
    cells = (
        model,
        str(rate.num_judged),
        f"{100 * rate.win_rate:.2f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
    )
    controlled = "-" if rate.length_controlled is None else f"{100 * rate.length_controlled:.2f}"
    if against is None or against == model:
        return (*cells, controlled, "")
    difference, (least, most) = found.difference(model, against)
    return (*cells, controlled, f"{100 * difference:+.1f} ({100 * least:+.1f} to {100 * most:+.1f})")
