"""`burnish pretrain RECIPE [key=value ...]`: train a new model on text, from random weights."""

from __future__ import annotations

from rich.console import Console

from burnish.cli.output import Output
from burnish.cli.progress import TrainingDisplay
from burnish.cli.train import AsJson, Overrides, RecipePath, report
from burnish.recipe.load import load_recipe
from burnish.training.run import train


def command(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Pre-train a model that has a config and a tokenizer but no weights; every token of the text is graded."""
    loaded = load_recipe(recipe, overrides or [])
    with TrainingDisplay(Console(stderr=as_json)) as display:
        result = train(loaded, from_scratch=True, show=display.show)
    report(result, Output(as_json=as_json))
