"""The verbs by name. `burnish --help` reads this table; a verb's module is imported when the verb runs.

A verb is a module with a `command`: a function with typer annotations, or a typer app of its own.

    # cli/runs.py
    def command(
        directory: Annotated[Path, Argument(help="Folder that holds run directories.")] = Path("runs"),
        as_json: Annotated[bool, Option("--json")] = False,
    ) -> None: ...
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from burnish.cli.machine import version_of
from burnish.cli.output import debug
from burnish.errors import UsageError
from burnish.kernels import build
from burnish.parallel.runtime import importing


@dataclass(frozen=True)
class Verb:
    """One verb: the panel it is listed in, and what it does in one line."""

    panel: str
    summary: str


VERBS = {
    "demo": Verb("Start", "See a base model become an assistant, live, in three minutes."),
    "doctor": Verb("Start", "Look at this machine: versions, devices, speed, memory, and what to mind."),
    "check": Verb("Data", "Know all that can be known of a recipe before step 0; every row is read."),
    "preview": Verb("Data", "See, token by token, what training would feed and what is graded."),
    "data": Verb("Data", "Work on data sets: inspect, convert, deduplicate, decontaminate, filter, mix."),
    "plan": Verb(
        "Train", "What a run will compute, hold and take, and what to change where it does not fit."
    ),
    "train": Verb("Train", "Fine-tune a model by a recipe."),
    "resume": Verb("Train", "Go on with an interrupted run."),
    "pretrain": Verb("Train", "Train a new model on text, from random weights."),
    "runs": Verb("Train", "List the runs in a folder: model, steps, losses, state."),
    "eval": Verb(
        "Judge", "Measure a run or a model: held-out loss, answers, tasks; intervals, base, contamination."
    ),
    "compare": Verb("Judge", "Base and tuned model side by side on the same prompts."),
    "sharpening": Verb(
        "Judge", "What training did to each token: probabilities before and after, and what the base knew."
    ),
    "winrate": Verb("Judge", "Win rates of given preferences, with intervals, and with length taken out."),
    "arena": Verb(
        "Judge", "Blind pairs for people or judges: vote, count, export; how many prompts are needed."
    ),
    "report": Verb("Judge", "Runs as one self-contained page: what was done, how well, at what cost."),
    "curve": Verb("Judge", "What the next rows would buy: training on subsets, a fitted law, advice."),
    "fewshot": Verb(
        "Judge", "Prompting with examples beside the tuned model, and when tuning pays for itself."
    ),
    "chat": Verb("Use", "Ask a run, a model directory or a hub model."),
    "export": Verb(
        "Use",
        "Take a finished run elsewhere, proved to be what was trained: hf, adapter, vllm, gguf, ollama.",
    ),
    "serve": Verb("Use", "Serve runs and models with OpenAI's API, on this machine."),
}

TRAINING = ("demo", "train", "resume", "pretrain")
"""Verbs that compute for long: kernels that this machine lacks are compiled while torch is being imported."""


class LazyGroup(TyperGroup):
    """A group of verbs: lists stubs, and imports the one verb that is called, a module of `package`."""

    table: ClassVar[dict[str, Verb]] = VERBS
    package: ClassVar[str] = "burnish.cli"
    words: ClassVar[str] = "burnish"

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stub with the verb's name and summary: all that a listing shows."""
        verb = self.table.get(cmd_name)
        return verb and TyperCommand(cmd_name, help=verb.summary, rich_help_panel=verb.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that is called, imported."""
        name = args[0]
        if name in self.table:
            return name, load_verb(name, self.package), args[1:]
        if ctx.resilient_parsing:
            return None, None, args[1:]
        near = difflib.get_close_matches(name, self.table, n=1)
        raise UsageError(
            f"{self.words} {name!r}",
            rule=f"the verbs are {', '.join(self.table)}",
            remedy=f"say `{self.words} {near[0]}`" if near else f"see `{self.words} --help`",
        )


def load_verb(name: str, package: str = "burnish.cli") -> Any:
    """Import a verb's module and make a click command of its `command`."""
    if name in TRAINING:
        build.begin()
    with importing():
        command = importlib.import_module(f"{package}.{name}").command
    if not isinstance(command, typer.Typer):
        function, command = command, typer.Typer(add_completion=False)
        command.command(name, help=function.__doc__)(function)
    loaded = typer.main.get_command(command)
    loaded.name = name
    return loaded


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"burnish {version_of('burnish') or '(not installed)'}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    with_traceback: Annotated[
        bool, typer.Option("--debug", help="On a bug, print the traceback (also: BURNISH_DEBUG=1).")
    ] = False,
) -> None:
    """Supervised fine-tuning of language models that proves what it grades."""
    if with_traceback:
        debug()


def group() -> Any:
    """The whole command line as one click group."""
    app = typer.Typer(cls=LazyGroup, name="burnish", rich_markup_mode="rich")
    app.callback()(_options)
    return typer.main.get_command(app)
