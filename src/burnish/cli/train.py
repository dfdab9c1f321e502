"""`burnish train RECIPE [key=value ...]`: train, with a live line, and say what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from burnish.cli.output import Output
from burnish.cli.progress import TrainingDisplay
from burnish.parallel.launch import become_many, launched
from burnish.recipe.load import load_recipe
from burnish.training.merge import Drift
from burnish.training.reckoning import in_words
from burnish.training.run import RunResult, Show, train
from burnish.training.stages import sources_in_words

INTERRUPTED = 130
"""The exit code of a run that a signal (SIGINT, SIGTERM, SIGHUP) stopped, its checkpoint saved."""

RecipePath = Annotated[Path, typer.Argument(help="A YAML recipe.", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Keys that override the recipe's, as key=value.", metavar="[KEY=VALUE]..."),
]
AsJson = Annotated[bool, typer.Option("--json", help="End with one line of JSON on stdout.")]


Processes = Annotated[
    int | None, typer.Option(min=1, help="Run in so many processes of this machine, by torchrun.")
]
Restarts = Annotated[
    int, typer.Option(min=0, help="How often torchrun starts all of them again when one is lost.")
]


def command(
    recipe: RecipePath,
    overrides: Overrides = None,
    as_json: AsJson = False,
    processes: Processes = None,
    restarts: Restarts = 0,
) -> None:
    """Fine-tune a model by a recipe; Ctrl-C once stops after the step in hand and saves."""
    loaded = load_recipe(recipe, overrides or [])
    if processes is not None:
        become_many(processes, restarts, loaded.recipe)
    with display_of_first(as_json=as_json) as show:
        result = train(loaded, show=show)
    report(result, Output(as_json=as_json))


@contextmanager
def display_of_first(*, as_json: bool) -> Iterator[Show]:
    """The live display; on ranks other than the first nothing is shown."""
    if not launched().is_first:
        yield lambda event: None
        return
    with TrainingDisplay(Console(stderr=as_json)) as display:
        yield display.show


def report(result: RunResult, output: Output) -> None:
    """Say what a run came to and what to do next."""
    if not launched().is_first:
        raise typer.Exit(INTERRUPTED if result.stopped_by == "interrupted" else 0)
    output.emit(result.as_dict())
    rows = result.rows
    dropped = ", ".join(f"{count} {reason}" for reason, count in rows["dropped"].items()) or "none"
    output.say(f"\n{result.run}: {result.stopped_by} after {result.steps} steps")
    output.say(f"  rows: {rows['read']} read, {rows['used']} used; dropped: {dropped}")
    for line in sources_in_words(result.sources) if len(result.sources) > 1 else ():
        output.say(f"  {line}")
    if result.eval_loss is not None and result.best_eval_loss is not None:
        output.say(f"  held-out loss: {result.eval_loss:.4f}, best {result.best_eval_loss:.4f}")
    for entry in result.merge or []:
        output.say(f"  {Drift(**entry)}")
    if result.reckoning is not None:
        output.say(f"  {in_words(result.reckoning)}")
    if result.stopped_by == "interrupted":
        output.say(f"  go on:   burnish resume {result.run}")
        raise typer.Exit(INTERRUPTED)
    output.say(f"  model:   {result.final}")
    output.say(f"  next:    burnish chat {result.run}    burnish compare {result.run}")
