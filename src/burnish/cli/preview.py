"""`burnish preview DATA --model M`: what training would feed, token by token, and what of it is graded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from burnish.chat.strip import Strip, html, strip_of, terminal
from burnish.cli.output import Output
from burnish.data.ledger import Ledger
from burnish.recipe.load import load_recipe
from burnish.training.session import encode_recipe

SHOWN = 3
IN_HTML = 200


def command(
    data: Annotated[str, typer.Argument(help="A data file, glob, folder or hub name.", metavar="DATA")],
    model: Annotated[
        str, typer.Option(help="Whose tokenizer and chat template: directory, hub id or `marble`.")
    ],
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja file instead of the model's own.")
    ] = None,
    format: Annotated[str, typer.Option(help="Layout of the records; auto looks and says why.")] = "auto",
    train_on: Annotated[str, typer.Option(help="Grade `all` assistant turns, or the `last`.")] = "all",
    max_length: Annotated[
        int | None, typer.Option(help="Longest example, in tokens, as in a recipe.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most so many examples.")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write one page that needs no network.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for every example.")] = False,
) -> None:
    """Show the token strip: grey is context, colour is graded. Rows that cannot be graded are named and left out."""
    said: dict[str, Any] = {
        "model": model,
        "datasets": [{"path": data, "format": format}],
        "train_on": train_on,
        "on_bad_row": "drop",
    }
    said |= {"chat_template": str(chat_template)} if chat_template else {}
    said |= {"max_length": max_length} if max_length else {}
    tokenizer, prepared = encode_recipe(load_recipe(None, said).recipe)
    strips = [strip_of(view, tokenizer.encoder) for views in prepared.train for view in views]
    output = Output(as_json=as_json)
    _name_the_lost(prepared.ledger, output)
    if html_file is not None:
        html_file.write_text(
            html(strips[: limit or IN_HTML], title=f"{data} as {model} sees it"), encoding="utf-8"
        )
        output.say(f"wrote {html_file}")
    elif as_json:
        for strip in strips[:limit]:
            output.emit(strip.as_dict())
    else:
        _print(strips, limit or SHOWN, output)


def _print(strips: list[Strip], shown: int, output: Output) -> None:
    console = Console()
    for strip in strips[:shown]:
        console.print(terminal(strip))
        console.print()
    tokens = sum(len(strip.example) for strip in strips)
    graded = sum(strip.example.num_graded for strip in strips)
    output.say(
        f"{len(strips):,} examples, {tokens:,} tokens; {graded / tokens:.0%} of tokens teach", style="bold"
    )


def _name_the_lost(ledger: Ledger, output: Output) -> None:
    """Every row that training would not see as it stands, on stderr."""
    for entry in ledger.entries():
        output.warn(f"{entry.file}:{entry.line}: {entry.action}: {entry.reason} ({entry.detail})")
