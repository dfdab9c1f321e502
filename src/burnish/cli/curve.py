"""`burnish curve RECIPE --sizes 30,100,300`: what the next rows would buy, from subsets of those there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli.output import Output
from burnish.cli.train import AsJson, Overrides, RecipePath
from burnish.errors import UsageError
from burnish.experiments.asking import METRICS
from burnish.experiments.curve import Asked, curve, require_rules
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe


def command(
    recipe: RecipePath,
    overrides: Overrides = None,
    sizes: Annotated[
        str,
        typer.Option(help="Numbers of rows, as 30,100,300; none: about three to a factor of ten, up to all."),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Each draws its own nested subsets.")] = 3,
    rule: Annotated[str, typer.Option(help="What sizes have in common: epochs, steps, or epochs,steps.")] = (
        "epochs,steps"
    ),
    metric: Annotated[str, typer.Option(help=f"What is measured: {', '.join(METRICS)}.")] = "exact",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Updates under equal steps; none: those of the largest size.")
    ] = None,
    halve: Annotated[
        bool, typer.Option(help="Also train without half of each dataset: what its rows are worth to all.")
    ] = False,
    next_rows: Annotated[int, typer.Option(min=1, help="The rows that one might still collect.")] = 1000,
    worth: Annotated[
        float | None, typer.Option(help="Points (or nats) that they must buy; default 1 point, 0.01 nats.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer; none: half as much again as the longest expected."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings at a time; none: one for each core, or for each GPU.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the cells; the same command goes on there. None: runs/RECIPE-curve."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train on nested subsets over seeds, fit a saturating power law, and say whether to collect more."""
    prepare_process()
    output = Output(as_json=as_json)
    loaded = load_recipe(recipe, overrides or [])
    asked = Asked(
        sizes=numbers(sizes, "--sizes"),
        seeds=seeds,
        rules=require_rules(tuple(rule.split(","))),
        metric=metric,
        steps=steps,
        halve_sources=halve,
        next_rows=next_rows,
        worth=worth,
        max_new_tokens=max_new_tokens,
        jobs=jobs,
    )
    folder = out or Path(loaded.recipe.output_dir) / f"{recipe.stem}-curve"
    found = curve(loaded, folder, asked, lambda text: output.say(text, style="dim"))
    output.emit(found)
    if not as_json:
        _print(found, folder, output)


def numbers(words: str, option: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        return tuple(int(word.replace("_", "")) for word in words.split(",") if word.strip())
    except ValueError:
        raise UsageError(
            f"{option} {words!r}",
            rule="whole numbers with commas between them",
            remedy=f"{option} 30,100,300",
        ) from None


def _print(found: dict[str, Any], folder: Path, output: Output) -> None:
    metric = METRICS[found["metric"]]
    rules = list(found["sizes"])
    sizes = sorted({one["rows"] for own in found["sizes"].values() for one in own})
    table = []
    for size in sizes:
        cells = [f"{size:,}"]
        for rule in rules:
            one = next((each for each in found["sizes"][rule] if each["rows"] == size), None)
            cells.append(
                f"{metric.words(one['value'])} ({metric.words(one['low'])} to {metric.words(one['high'])})"
                if one
                else "-"
            )
        table.append(cells)
    output.say()
    output.table(("rows", *(f"{metric.name}, equal {rule}" for rule in rules)), table)
    output.say(f"0 rows: {metric.words(found['base']['value'])}; {found['held_out']:,} held-out rows")
    output.say()
    for sentence in found["advice"]:
        output.say(f"- {sentence}")
    output.say(f"\n{folder / 'curve.json'}, {folder / 'curve.svg'}", style="dim")
