"""`burnish data inspect DATA...`: what a data set holds, before anything is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from burnish.cli.data.options import AsJson, Counting, Format, Paths, Processes, Split, inputs_of
from burnish.cli.output import Output
from burnish.curation.items import Input, Item, chunks, formats_of, read_items
from burnish.curation.spread import spread
from burnish.data.read import inspect_source
from burnish.types import Rejected, Row

BAR = 40


def command(
    data: Paths,
    model: Annotated[
        str | None, typer.Option("--model", help="Count tokens as this model's training would.")
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", help="With --model: where the cut would be.", min=1)
    ] = 2048,
    format: Format = "auto",
    split: Split = "train",
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Count what a data set holds: formats, roles, turns, lengths, scripts, duplicates, oddities, secrets.

    All by rules of thumb: languages are told apart by script alone, and patterns of secrets and personal data prove
    nothing. Near duplicates are `burnish data dedup`'s.
    """
    report = _survey(inputs_of(data, format, split), model, max_length, processes)
    output = Output(as_json=as_json)
    output.emit(report)
    if not as_json:
        _print(report, output)


def _survey(inputs: tuple[Input, ...], model: str | None, max_length: int, processes: int) -> dict[str, Any]:
    """The whole report as plain values."""
    from burnish.curation.survey import Duplicates, Lengths, Look, Part, lengths_of

    formats = {source.path: inspect_source(source) for source in inputs}
    whole, duplicates, tokens = Part(), Duplicates(), Lengths(limit=max_length)
    count = _token_counter(model, inputs) if model else None
    refused = 0
    with Counting() as progress:
        for chunk, part in spread(Look(), chunks(read_items(inputs)), processes=processes):
            whole.add(part)
            duplicates.add(part)
            progress(whole.rows)
            for length in count(chunk) if count else ():
                refused += length is None
                if length is not None:
                    tokens.add(length)
    return {
        "rows": whole.rows,
        "formats": {
            path: {"format": found.format, "why": list(found.reasons)} for path, found in formats.items()
        },
        "unreadable": dict(whole.unreadable.most_common()),
        "kinds": dict(whole.kinds.most_common()),
        "roles": dict(whole.roles.most_common()),
        "turns": dict(sorted(whole.turns.items())),
        "scripts": dict(whole.scripts.most_common()),
        "words": lengths_of(whole.words).as_dict(),
        "response_words": lengths_of(whole.response_words).as_dict(),
        **({"tokens": {**tokens.as_dict(), "refused": refused}} if model else {}),
        "duplicates": {"rows": duplicates.rows, "prompts": duplicates.prompts},
        "finds": {kind: dict(counts.most_common()) for kind, counts in whole.finds.items()},
        "places": whole.places,
    }


def _token_counter(
    model: str, inputs: tuple[Input, ...]
) -> Callable[[Iterable[Item | Rejected]], Iterable[int | None]]:
    """For each row of a chunk the tokens of its longest sequence, None where the encoder refuses it."""
    from burnish.chat.refusal import RowRefused
    from burnish.models.tokenizer import load_chat_tokenizer  # transformers takes seconds

    encoder = load_chat_tokenizer(model, chat=formats_of(inputs) != {"text"}).encoder

    def length(row: Row) -> int | None:
        try:
            return max(map(len, encoder.encode(row)))
        except RowRefused:
            return None

    return lambda chunk: (length(item.row) for item in chunk if isinstance(item, Item))


def _print(report: dict[str, Any], output: Output) -> None:
    output.say(f"{report['rows']:,} rows", style="bold")
    for path, found in report["formats"].items():
        output.say(f"  {path}: {found['format']} ({'; '.join(found['why'])})")
    for name in ("unreadable", "kinds", "roles", "scripts"):
        if report[name]:
            output.say(f"  {name}: {', '.join(f'{what} {count:,}' for what, count in report[name].items())}")
    turns = ", ".join(f"{turns}: {count:,}" for turns, count in list(report["turns"].items())[:12])
    output.say(f"  messages in a conversation: {turns}" if turns else "  no conversations")
    duplicates = report["duplicates"]
    output.say(
        f"  duplicates: {duplicates['rows']:,} rows, {duplicates['prompts']:,} prompts (after normalisation)"
    )
    for name in ("words", "response_words", "tokens"):
        if name in report:
            _histogram(name.replace("_", " "), report[name], output)
    finds = [
        (f"{count:,}", kind, what, ", ".join(report["places"][f"{kind}: {what}"]))
        for kind, counts in report["finds"].items()
        for what, count in list(counts.items())[:8]
    ]
    if finds:
        output.say("")
        output.table(("rows", "kind", "what (by pattern: no proof)", "first seen at"), finds)


def _histogram(name: str, lengths: dict[str, Any], output: Output) -> None:
    """Bars by powers of two, with the cut line where there is one."""
    limit = lengths.get("limit")
    output.say(f"\n{name} of a row: {lengths['total']:,} in all, the longest row {lengths['longest']:,}")
    most = max(lengths["histogram"].values(), default=1)
    cut = limit is None
    for bounds, count in lengths["histogram"].items():
        if not cut and int(bounds.split("-")[-1]) > (limit or 0):
            cut = True
            output.say(f"  --- cut at {limit:,}: {lengths['over']:,} rows are longer ---", style="yellow")
        output.say(f"  {bounds:>15} {count:>9,} {'█' * round(BAR * count / most)}")
