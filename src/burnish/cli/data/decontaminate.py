"""`burnish data decontaminate DATA... --against EVAL --out FILE`: rows that hold parts of evaluation files go."""

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
    against: Annotated[
        list[str], typer.Option("--against", help="Evaluation file, folder or glob; may be given often.")
    ],
    ngram: Annotated[
        list[int] | None,
        typer.Option(
            "--ngram", help="Words of a sequence that may not be shared; may be given often (13 and 8)."
        ),
    ] = None,
    on: Annotated[str, typer.Option("--on", help="What is searched: both, prompts or responses.")] = "both",
    format: Format = "auto",
    split: Split = "train",
    ledger: LedgerPath = None,
    processes: Processes = 1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Take out rows that share a word sequence with an evaluation row; the ledger names the sequence and the row."""
    from burnish.curation.decontaminate import SIZES, read_evaluations
    from burnish.curation.draft import stamps_of
    from burnish.curation.texts import as_part

    sizes = tuple(ngram or SIZES)
    evaluations = inputs_of(against, "auto", split)
    known = read_evaluations(evaluations, sizes=sizes, part=as_part(on))
    settings = {"sizes": sizes, "on": on, "against": [[one.path, stamps_of(one.path)] for one in evaluations]}
    job = Job("decontaminate", inputs_of(data, format, split), out, settings, ledger, overwrite)
    report = run(job, known, processes=processes)
    tell(report, Output(as_json=as_json), evaluation_rows=len(known.places))
