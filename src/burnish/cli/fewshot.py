"""`burnish fewshot RECIPE`: prompting with examples beside the tuned model, and when tuning pays for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli.curve import numbers
from burnish.cli.output import Output
from burnish.cli.train import AsJson, Overrides, RecipePath
from burnish.errors import UsageError
from burnish.experiments.fewshot import Question, fewshot
from burnish.experiments.prices import Prices
from burnish.experiments.shots import LAYOUTS
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe

Price = Annotated[float | None, typer.Option(min=0, help="Price of a million tokens, in any one currency.")]


def command(
    recipe: RecipePath,
    overrides: Overrides = None,
    shots: Annotated[str, typer.Option(help="Numbers of examples.")] = "1,2,4,8",
    metric: Annotated[str, typer.Option(help="What is measured: exact or contains.")] = "exact",
    run: Annotated[
        Path | None, typer.Option(help="A finished run of this recipe; none: the recipe is trained here.")
    ] = None,
    layout: Annotated[
        str, typer.Option(help=f"How a base without a template is asked: auto, {', '.join(LAYOUTS)}.")
    ] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first so many held-out rows.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    seed: Annotated[int, typer.Option(help="Which fixed examples are drawn.")] = 0,
    price_prompt: Price = None,
    price_completion: Price = None,
    price_tuned_prompt: Price = None,
    price_tuned_completion: Price = None,
    cost_training: Annotated[float, typer.Option(min=0, help="What the training costs, once.")] = 0.0,
    cost_row: Annotated[float, typer.Option(min=0, help="What making one demonstration costs.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder; the same command goes on there. None: runs/RECIPE-fewshot.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Zero-shot, k-shot (fixed and retrieved examples) and tuned, on the same held-out rows."""
    prepare_process()
    if layout not in ("auto", *LAYOUTS):
        raise UsageError(
            f"--layout {layout}",
            rule=f"a layout is auto, {', '.join(LAYOUTS)}",
            remedy="leave it out: the one that does best on 32 training rows is taken",
        )
    prices = Prices(
        price_prompt, price_completion, price_tuned_prompt, price_tuned_completion, cost_training, cost_row
    )
    if not prices.are_said and (cost_training or cost_row):
        raise UsageError(
            "a cost of tuning, and no price of a request",
            rule="what is paid once is set against what each request saves, in the same currency",
            remedy="say --price-prompt and --price-completion, per million tokens",
        )
    output = Output(as_json=as_json)
    loaded = load_recipe(recipe, overrides or [])
    asked = Question(numbers(shots, "--shots"), metric, seed, max_new_tokens, layout, run, limit, prices)
    folder = out or Path(loaded.recipe.output_dir) / f"{recipe.stem}-fewshot"
    found = fewshot(loaded, folder, asked, lambda text: output.say(text, style="dim"))
    output.emit(found)
    if not as_json:
        _print(found, folder, output)


def _print(found: dict[str, Any], folder: Path, output: Output) -> None:
    output.say()
    output.table(
        ("", found["metric"], "95%", "tokens a request"),
        [
            (
                one["name"],
                f"{one['value']:.1%}",
                f"{one['low']:.1%} to {one['high']:.1%}",
                f"{one['tokens_per_request']:,.0f}",
            )
            for one in found["arms"]
        ],
    )
    output.say(f"{found['held_out']:,} held-out rows; the base is asked in the layout `{found['layout']}`\n")
    for sentence in found["advice"]:
        output.say(f"- {sentence}")
    output.say(f"\n{folder / 'fewshot.json'}", style="dim")
