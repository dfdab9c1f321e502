"""`burnish resume RUN`: go on where an interrupted run stopped; `--verify` proves that this is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from burnish.cli.output import Output
from burnish.cli.train import AsJson, Overrides, Processes, Restarts, display_of_first, report
from burnish.parallel.launch import become_many
from burnish.recipe.load import load_recipe
from burnish.training.again import repeat_last_interval
from burnish.training.directory import open_run
from burnish.training.run import resume


def command(
    run: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")],
    overrides: Overrides = None,
    allow_change: Annotated[
        str, typer.Option(help="Keys that may differ from the run's, comma-separated; `data` for other rows.")
    ] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Train the last interval again and compare; writes nothing.")
    ] = False,
    as_json: AsJson = False,
    processes: Processes = None,
    restarts: Restarts = 0,
) -> None:
    """Go on with an interrupted run from its newest whole checkpoint; `num_epochs=...` makes a run longer."""
    output = Output(as_json=as_json)
    if processes is not None:
        recipe = load_recipe(open_run(run).path / "resolved.yaml", overrides or []).recipe
        become_many(processes, restarts, recipe)
    if verify:
        _verify(run, output)
        return
    allowed = [key for key in allow_change.split(",") if key]
    with display_of_first(as_json=as_json) as show:
        result = resume(run, overrides or [], allow_change=allowed, show=show)
    report(result, output)


def _verify(run: Path, output: Output) -> None:
    found = repeat_last_interval(run)
    output.emit(found.as_dict())
    way = f"{run}: step {found.first} to {found.last} trained again"
    if not found.differences:
        output.say(f"{way}: {found.tensors} tensors and the run's state are equal, bit for bit")
        return
    output.say(f"{way}: {len(found.differences)} differences", style="red")
    for difference in found.differences[:20]:
        output.say(f"  {difference}")
    output.say(
        "  the same machine, versions, threads and kernels give the same bits; environment.json has the run's"
    )
    raise typer.Exit(1)
