"""`burnish preview DATA --model M`: what training would feed, token by token, and what of it is graded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from burnish.chat.encode import Encoder
from burnish.chat.page import COUNT_WORDS, Facts, Lost, html
from burnish.chat.paint import terminal
from burnish.chat.strip import Strip, strip_of
from burnish.cli.output import Output
from burnish.data.ledger import Entry, Ledger
from burnish.data.sample import fit_row, names, replayed_rows, sample_rows
from burnish.models.tokenizer import ChatTokenizer, load_chat_tokenizer
from burnish.recipe.load import load_recipe
from burnish.recipe.schema import Recipe
from burnish.types import Conversation, Row

SHOWN = 3
IN_HTML = 200
GIVE_UP = 1_000
"""After so many rows that give nothing to show, more of the same is not looked for."""


def command(
    data: Annotated[str, typer.Argument(help="A data file, glob, folder or hub name.", metavar="DATA")],
    model: Annotated[
        str, typer.Option(help="Whose tokenizer and chat template: directory, hub id or `marble`.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of a recipe, as key=value.", metavar="[KEY=VALUE]..."),
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja file instead of the model's own.")
    ] = None,
    format: Annotated[str, typer.Option(help="Layout of the records; auto looks and says why.")] = "auto",
    train_on: Annotated[
        str, typer.Option(help="Grade `all` assistant turns, the `last`, or `none-but-flagged`.")
    ] = "all",
    max_length: Annotated[
        int | None, typer.Option(help="Longest example, in tokens, as in a recipe.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Show so many rows, and read no further.")] = None,
    row: Annotated[
        list[str] | None, typer.Option(help="Show this row: its number, or FILE:LINE. May be repeated.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write one page that needs no network.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for every sequence.")] = False,
) -> None:
    """Show the token strip: grey is context, colour is graded. Rows that cannot be graded are named and left out.

    Recipe keys may follow as key=value, such as `on_too_long=cut_answer`.
    """
    said: dict[str, Any] = {
        "model": model,
        "datasets": [{"path": data, "format": format}],
        "train_on": train_on,
        "on_bad_row": "drop",
    }
    said |= {"chat_template": str(chat_template)} if chat_template else {}
    said |= {"max_length": max_length} if max_length else {}
    # JSON is YAML, so that a path reads as it is written, whatever characters it has.
    words = [f"{key}={json.dumps(value)}" for key, value in said.items()]
    sample = Sample(load_recipe(None, [*words, *(overrides or [])]).recipe, row or ())
    output = Output(as_json=as_json)
    # JSON is for programs, which get every row; people look at a few, and the others are not even read.
    most = limit or (None if row or as_json else IN_HTML if html_file else SHOWN)
    if html_file is not None:
        _write(sample, sample.strips(most), html_file, data, model)
    elif as_json:
        for strip in sample.strips(most):
            output.emit(strip.as_dict())
    else:
        console = Console()
        for strip in sample.strips(most):
            console.print(terminal(strip), "")
    for entry in sample.lost():
        output.warn(f"{entry.file}:{entry.line}: {entry.action}: {entry.reason} ({entry.detail})")
    if html_file is not None:
        output.say(f"wrote {html_file}: {sample.figures()}")
    elif not as_json:
        _conclude(sample, output)


@dataclass
class Sample:
    """Rows of a recipe as strips, made one by one, with the figures of those made so far."""

    recipe: Recipe
    wanted: Sequence[str] = ()
    ledger: Ledger = field(default_factory=Ledger)
    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    graded: int = 0
    complete: bool = False
    tokenizer: ChatTokenizer | None = None

    def strips(self, most: int | None) -> Iterator[Strip]:
        """The strips of at most so many rows, then of one that is replayed; all rows where `most` is None."""
        rows = sample_rows(self.recipe, self.ledger, wanted=self.wanted)
        # A template is asked for where a conversation is among the first rows, as training asks among all.
        head = list(islice(rows, most))
        chat = any(isinstance(row.content, Conversation) for row in head)
        self.tokenizer = _load_tokenizer(self.recipe, chat=chat)
        for tried, row in enumerate(chain(head, rows), start=1):
            yield from self._strips_of(row, self.tokenizer.encoder)
            if most is not None and (self.rows == most or tried - self.rows >= GIVE_UP):
                break
        self.complete = not self.wanted and next(rows, None) is None
        replayed = () if self.wanted else islice(replayed_rows(self.recipe), most and 1)
        for row in replayed:
            yield from self._strips_of(row, self.tokenizer.encoder)

    def lost(self) -> list[Entry]:
        """What the ledger says of the rows that were looked at."""
        entries = self.ledger.entries()
        return [one for one in entries if not self.wanted or names(self.wanted, one.row, one.file, one.line)]

    def scope(self) -> str:
        """Of what the figures tell."""
        return "(all of the data)" if self.complete else "(not all of the data; `burnish check` reads it all)"

    def figures(self) -> str:
        """The counts and the share that teaches, in words."""
        share = self.graded / max(1, self.tokens)
        return (
            f"{self.rows:,} rows, {self.sequences:,} sequences, {self.tokens:,} tokens; "
            f"{share:.0%} of tokens teach {self.scope()}"
        )

    def _strips_of(self, row: Row, encoder: Encoder) -> Iterator[Strip]:
        before_counts = Counter(encoder.counts)
        parts = fit_row(row, encoder, self.recipe, self.ledger)
        self.counts.update(encoder.counts - before_counts)
        self.rows += bool(parts)
        strip: Strip | None = None
        for number, part in enumerate(parts, start=1):
            strip = strip_of(
                part.example,
                encoder,
                origins=encoder.origins(row, part.view)[part.start :][: len(part.example)],
                place=str(row.origin),
                view=number,
                num_views=len(parts),
                before=strip,
            )
            self.sequences += 1
            self.tokens += len(part.example)
            self.graded += part.example.num_graded
            yield strip


def _load_tokenizer(recipe: Recipe, *, chat: bool) -> ChatTokenizer:
    return load_chat_tokenizer(
        recipe.tokenizer or recipe.model,
        chat_template=recipe.chat_template,
        chat_template_kwargs=recipe.chat_template_kwargs,
        train_on=recipe.train_on.value,
        reasoning=recipe.reasoning.value,
        chat=chat,
    )


def _write(sample: Sample, strips: Iterator[Strip], path: Path, data: str, model: str) -> None:
    drawn = list(strips)
    facts = Facts(
        dataset=data,
        model=model,
        template=_template_in_words(sample.tokenizer),
        scope=sample.scope(),
        counts=sample.counts,
        lost=[Lost(f"{one.file}:{one.line}", one.action, one.reason, one.detail) for one in sample.lost()],
    )
    page = html(drawn, title=f"{data} as {model} sees it", facts=facts)
    # A lone surrogate of a file's name has no UTF-8; it is shown, never a crash.
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _template_in_words(tokenizer: ChatTokenizer | None) -> str:
    if tokenizer is None or tokenizer.template is None:
        return "none: plain text"
    return f"{tokenizer.template_origin} · {tokenizer.template.sha256[:8]}"


def _conclude(sample: Sample, output: Output) -> None:
    for key, count in sample.counts.items():
        output.say(f"{count:,} {COUNT_WORDS.get(key, key.replace('_', ' '))}")
    output.say(f"template: {_template_in_words(sample.tokenizer)}")
    output.say(sample.figures(), style="bold")
