"""`burnish check RECIPE`: everything that can be known before step 0."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from burnish.cli.output import Output
from burnish.cli.progress import RowsDone
from burnish.cli.train import AsJson, Overrides, RecipePath
from burnish.errors import UsageError
from burnish.recipe.load import LoadedRecipe, load_recipe
from burnish.training.certificate import build_share
from burnish.training.check import CheckReport, check_stages, stages_to_check
from burnish.training.stages import sources_in_words


def command(
    recipe: RecipePath,
    overrides: Overrides = None,
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle", help="Load the model too, and compare the first batch with plain transformers."
        ),
    ] = False,
    share: Annotated[
        str | None,
        typer.Option(
            "--share",
            metavar="K/N",
            help="Only encode the K-th of N shares, into a cache that all N see; check without it joins them.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read every row, encode it, and say in plain words what a run would do; exit 3 if an example breaks a rule."""
    output = Output(as_json=as_json)
    rows = RowsDone(Console(stderr=True))
    if share is not None:
        _encode_share(load_recipe(recipe, overrides or []), as_share(share), rows, output)
        return
    try:
        reports = check_stages(load_recipe(recipe, overrides or []), progress=rows.show, oracle=oracle)
    finally:
        rows.close()
    output.emit(_as_dict(reports))
    for name, report in reports.items():
        if not as_json:
            if name:
                output.say(f"\nstage {name}", style="bold")
            _print(report, output)
    if not all(report.ok for report in reports.values()):
        raise typer.Exit(3)


def as_share(words: str) -> tuple[int, int]:
    """`2/3` as the second of three, counted from 0."""
    number, _, of = words.partition("/")
    if number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of):
        return int(number) - 1, int(of)
    raise UsageError(f"--share {words}", rule="a share is K/N, K from 1 to N", remedy="write --share 1/2")


def _encode_share(loaded: LoadedRecipe, share: tuple[int, int], rows: RowsDone, output: Output) -> None:
    try:
        segments = {
            name: build_share(own, share, progress=rows.show) for name, own in stages_to_check(loaded)
        }
    finally:
        rows.close()
    output.emit({"share": [share[0] + 1, share[1]], "segments": segments})
    output.say(f"share {share[0] + 1} of {share[1]} is encoded; once all are, check or train joins them")


def _as_dict(reports: dict[str, CheckReport]) -> dict[str, Any]:
    """A recipe without stages is told as its only one."""
    told = {name: report.as_dict() for name, report in reports.items()}
    return told[""] if [*told] == [""] else {"ok": all(each["ok"] for each in told.values()), "stages": told}


def _print(report: CheckReport, output: Output) -> None:
    found = report.certificate
    kept = f"{found.kept:,} of {found.rows:,} rows kept, {found.held_out:,} of them held out"
    share = found.graded_tokens / found.tokens
    when = "when the certificate was made; nothing changed since" if report.reused else "now"
    output.say(f"{kept}; read, encoded and proved at {found.rows_per_second:,.0f} rows/s {when}")
    for source in found.formats:
        output.say(f"format  {source}")
    output.say(f"{found.views:,} sequences, {found.tokens:,} tokens, {share:.0%} of them graded")
    output.say("length  " + "  ".join(f"{name} {length}" for name, length in report.lengths.items()))
    output.say(f"chat template: {report.chat_template}; an answer ends at {' or '.join(found.stop_tokens)}")
    output.say(f"{report.steps:,} updates of a model of {report.num_parameters:,} parameters")
    for line in sources_in_words(report.sources) if len(report.sources) > 1 else ():
        output.say(line)
    for reason, count in found.unusual.items():
        output.say(f"  counted: {count:,} {reason.replace('_', ' ')}")
    for finding in report.findings:
        output.say(f"  look at {finding.key} ({finding.saw}): {finding.advice}", style="yellow")
    for rule, count in found.violations.items():
        output.say(f"  BROKEN {count:,} times: {rule}", style="bold red")
        for example in found.examples.get(rule, ()):
            message = "" if example["message"] is None else f" message {example['message']}:"
            output.say(f"    {example['place']}:{message} {example['detail']}", style="red")
    output.say(f"certificate: {report.place}")
    if report.oracle is not None:
        output.say(f"oracle: {report.oracle}")
    if report.ok:
        output.say("every sequence keeps the rules of grading", style="green")
