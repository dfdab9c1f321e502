"""What is evaluated: a run's finished model, its base, or any model; and for a run, its held-out and training rows.

open_subject("runs/a")     the tuned model, fed as the run trained it
open_subject("marble")     a model that has no run: fed by its own template, or plain text
Run.base()                 what the run started from, asked as a base is, and shown rows as at step 0
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from burnish.data.rows import Rows, read_rows
from burnish.models.assistant import Assistant, finished, load_assistant
from burnish.models.load import add_token_rows
from burnish.models.tokenizer import ChatTokenizer, load_chat_tokenizer
from burnish.recipe.load import load_recipe
from burnish.recipe.schema import Recipe
from burnish.training.certificate import encoder_options, recipe_tokenizer
from burnish.training.continuity import recipe_of
from burnish.training.directory import RunDirectory, open_run
from burnish.types import Content


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with the tokenizer that feeds it rows; `recipe` where they are fed as a run trains them."""

    name: str
    path: str
    step: int | None
    assistant: Assistant
    tokenizer: ChatTokenizer
    recipe: Recipe | None = None


class Run:
    """A finished run, and what it was trained on."""

    def __init__(self, path: str) -> None:
        self.directory: RunDirectory = open_run(path)
        asked = load_recipe(self.directory.path / "resolved.yaml", []).recipe
        environment = self.directory.read("environment.json")
        self.recipes = [own for _, own in recipe_of(environment, asked).in_stages()]
        self.recipe = self.recipes[-1]
        said = environment.get("date")
        self._date = datetime.date.fromisoformat(said) if said else None

    @cached_property
    def rows(self) -> Rows:
        """The last stage's rows, as training read them."""
        return read_rows(self.recipe)

    def trained_on(self) -> list[Content]:
        """The contents of all training rows of all stages."""
        earlier = [row.content for recipe in self.recipes[:-1] for row in read_rows(recipe).train]
        return earlier + [row.content for row in self.rows.train]

    def tuned(self) -> Subject:
        """The finished model."""
        place = finished(str(self.directory.path))
        options = encoder_options(self.recipe)
        tokenizer = load_chat_tokenizer(place, chat=self.rows.has_conversations, **options)
        summary = self.directory.path / "summary.json"
        steps = self.directory.read("summary.json").get("steps") if summary.is_file() else None
        return Subject(
            "tuned", place, steps, load_assistant(str(self.directory.path)), tokenizer, self.recipe
        )

    def base(self) -> Subject:
        """The model before the first step: new tokens have the rows that training starts them with."""
        first = self.recipes[0]
        assistant = load_assistant(first.model, chat_template=first.chat_template)
        tokenizer = recipe_tokenizer(self.recipe, date=self._date, chat=self.rows.has_conversations)
        add_token_rows(assistant.model, len(tokenizer), tokenizer.new_ids, like=tokenizer.like)
        return Subject("base", first.model, 0, assistant, tokenizer, self.recipe)


def is_run(name: str) -> bool:
    """Whether a run directory has that path."""
    return (Path(name) / "resolved.yaml").is_file()


def open_model(name: str, *, adapter: str | None = None) -> Subject:
    """A model that has no run."""
    assistant = load_assistant(name, adapter=adapter)
    return Subject(Path(name).name or name, name, None, assistant, assistant.tokenizer)
