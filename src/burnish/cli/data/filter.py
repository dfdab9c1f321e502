"""`burnish data filter DATA... --rule NAME[=VALUE] --out FILE`: rows go by rules that are named."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.cli.data.options import (
    AsJson,
    Format,
    LedgerPath,
    Out,
    Overwrite,
    Paths,
    Processes,
    Split,
    inputs_of,
    run,
    tell,
)
from burnish.cli.output import Output
from burnish.curation.flow import Job


def command(
    data: Paths,
    out: Out,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", "-r", help="NAME or NAME=VALUE; may be given often."),
    ] = None,
    format: Format = "auto",
    split: Split = "train",
    ledger: LedgerPath = None,
    processes: Processes = 1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Take out rows by rules: words, prompt-words, characters, turns, script, repetition, refusal, cut, odd, ...

    LOW:HIGH are bounds that are still kept, and either may be left out. The first rule that a row breaks is its
    reason. An unknown rule is answered with the list.
    """
    from burnish.curation.rules import read_rules

    rules = read_rules(rule or [])
    job = Job("filter", inputs_of(data, format, split), out, {"rules": rule}, ledger, overwrite)
    report = run(job, rules, processes=processes)
    report.removed.update(
        dict.fromkeys((name for name, _ in rules.asked), 0)
    )  # a rule that saw nothing is told too
    tell(report, Output(as_json=as_json))
