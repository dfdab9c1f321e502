"""`burnish sharpening RUN`: the probability of each graded token before and after training, as heat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from burnish.cli.output import Output
from burnish.errors import UsageError
from burnish.evaluation.heat import heat_page, heat_terminal
from burnish.evaluation.sharpened import read_sharpening
from burnish.training.directory import open_run


def command(
    run: Annotated[Path, typer.Argument(help="A run directory; it may still be training.")],
    html: Annotated[Path | None, typer.Option(help="Write one HTML file that needs nothing else.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as one JSON line.")] = False,
) -> None:
    """What training did to the tokens of a few held-out rows: probabilities before and after, what the base knew."""
    found = read_sharpening(open_run(run).path)
    output = Output(as_json=as_json)
    output.emit({"run": str(run), **found.as_dict()})
    if not as_json:
        Console(highlight=False).print(heat_terminal(found))
        output.say(found.in_words(), style="bold")
    if html is not None:
        try:
            html.write_text(
                heat_page(found, title=f"{run.name}: sharpening"), encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            raise UsageError(
                f"{html}: {error}", rule="--html is a file that can be written", remedy="name another place"
            ) from error
        output.say(f"wrote {html}")
