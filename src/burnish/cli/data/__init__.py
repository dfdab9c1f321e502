"""`burnish data VERB`: the verbs on data sets by name; a verb's module is imported when the verb runs."""

from __future__ import annotations

from typing import ClassVar

import typer

from burnish.cli.app import LazyGroup, Verb

VERBS = {
    "inspect": Verb(
        "Look", "What a data set holds: formats, roles, lengths, languages, duplicates, oddities."
    ),
    "convert": Verb("Write", "Any format burnish reads, as messages in JSON Lines or Parquet."),
    "dedup": Verb("Write", "Leave one of each group of equal or nearly equal rows."),
    "decontaminate": Verb("Write", "Take out rows that share long word sequences with evaluation files."),
    "filter": Verb(
        "Write", "Take out rows by rules: length, language, repetition, refusals, cut answers, ..."
    ),
    "mix": Verb("Write", "Write a weighted mixture of data sets as one file."),
    "score": Verb("Judge", "Numbers for rows: by a model's own losses, a reward model, or a judge."),
    "select": Verb("Judge", "The N rows to train on, good and unlike each other, each with its reason."),
    "bias": Verb("Judge", "What answers follow that should not decide them."),
    "synth": Verb("Make", "Answers from a teacher, for given prompts or for prompts invented from seeds."),
}


class DataGroup(LazyGroup):
    """The group `burnish data`."""

    table: ClassVar[dict[str, Verb]] = VERBS
    package: ClassVar[str] = "burnish.cli.data"
    words: ClassVar[str] = "burnish data"


command = typer.Typer(
    cls=DataGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Work on data sets; every verb that writes leaves a ledger of what became of every row.",
)


@command.callback()
def _group() -> None:
    """Work on data sets; every verb that writes leaves a ledger of what became of every row."""
