"""`burnish resume RUN`: go on where an interrupted run stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from burnish.cli.output import Output
from burnish.cli.progress import TrainingDisplay
from burnish.cli.train import AsJson, Overrides, report
from burnish.training.run import resume


def command(
    run: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")],
    overrides: Overrides = None,
    allow_change: Annotated[
        str, typer.Option(help="Keys that may differ from the run's, comma-separated; `data` for other rows.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Go on with an interrupted run from its newest whole checkpoint."""
    allowed = [key for key in allow_change.split(",") if key]
    with TrainingDisplay(Console(stderr=as_json)) as display:
        result = resume(run, overrides or [], allow_change=allowed, show=display.show)
    report(result, Output(as_json=as_json))
