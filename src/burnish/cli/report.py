"""`burnish report RUN...`: one or several runs as one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from burnish.cli.output import Output
from burnish.errors import DataError, UsageError
from burnish.report.collect import Run, collect
from burnish.report.page import Extras, html, write
from burnish.report.values import mapping

MAX_RUNS = 12


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; RUN/report.html of the first run.")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(help="curve.json of `burnish curve`, or the folder that holds it.")
    ] = None,
    fewshot: Annotated[
        Path | None, typer.Option(help="fewshot.json of `burnish fewshot`, or the folder that holds it.")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="What an hour of the machine costs: the report then says what runs cost."),
    ] = None,
    currency: Annotated[str, typer.Option(help="In what the price is.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print where the report is as one JSON line.")
    ] = False,
) -> None:
    """One self-contained page: what was run, on what, how it learnt, how well it does, what it cost."""
    output = Output(as_json=as_json)
    if len(runs) > MAX_RUNS:
        raise UsageError(
            f"{len(runs)} runs",
            rule=f"at most {MAX_RUNS} runs stand side by side: more cannot be told apart",
            remedy="name fewer; `burnish runs` lists all of a folder",
        )
    found = _collected(runs)
    place = _place(out or runs[0] / "report.html", runs)
    extras = Extras(
        curve=_given(curve, "curve.json", runs),
        few_shot=_given(fewshot, "fewshot.json", runs),
        price=price,
        currency=currency,
    )
    write(html(found, extras), place)
    size = place.stat().st_size
    notes = [f"{run.name}: {note}" for run in found for note in run.notes]
    for note in notes:
        output.warn(note)
    output.emit({"report": str(place), "bytes": size, "runs": [str(run) for run in runs], "notes": notes})
    output.say(
        f"wrote {place} ({size / 1024:,.0f} KiB): open it in a browser, or send it; it needs no network"
    )


def _collected(runs: list[Path]) -> list[Run]:
    """The runs, each once; two of one name, from two folders, are told apart by their paths."""
    found = [collect(run) for run in dict.fromkeys(runs)]
    names = [run.name for run in found]
    for run in found:
        run.name = run.name if names.count(run.name) == 1 else str(run.path)
    return found


def _place(place: Path, runs: list[Path]) -> Path:
    """Where the report goes; an error where nothing can be written."""
    if place.parent.is_dir() and not place.is_dir():
        return place
    why = "it is a folder" if place.is_dir() else f"there is no folder {place.parent}"
    raise UsageError(
        f"{place} cannot be written: {why}",
        rule="a report is one file in a folder that is there",
        remedy=f"name one: burnish report {runs[0]} --out report.html",
    )


def _given(asked: Path | None, name: str, runs: list[Path]) -> dict[str, Any]:
    """A file that was named, or one that lies in the first run; an error where a named one cannot be read."""
    path = asked / name if asked is not None and asked.is_dir() else asked or runs[0] / name
    if asked is None and not path.is_file():
        return {}
    try:
        return mapping(orjson.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: {error}",
            rule=f"{name} is written whole by burnish",
            remedy="name the file that the verb wrote, or leave the option out",
        ) from error
