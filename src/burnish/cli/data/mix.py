"""`burnish data mix A=3 B=1 --rows N --out FILE`: a weighted mixture as one file."""

from __future__ import annotations

from typing import Annotated

import typer

from burnish.cli.data.options import (
    AsJson,
    Counting,
    Format,
    LedgerPath,
    Out,
    Overwrite,
    Split,
    inputs_of,
    run,
    tell,
)
from burnish.cli.output import Output
from burnish.curation.draft import require_writable
from burnish.curation.flow import Job
from burnish.curation.items import require_other_file


def command(
    data: Annotated[
        list[str], typer.Argument(metavar="DATA=WEIGHT...", help="Sources with their weights (1).")
    ],
    out: Out,
    rows: Annotated[
        int | None, typer.Option("--rows", help="Rows in all (as many as the scarcest source allows).", min=1)
    ] = None,
    short: Annotated[
        str, typer.Option("--short", help="Where a source has too few rows: stop, repeat or drop.")
    ] = "stop",
    seed: Annotated[int, typer.Option("--seed", help="Which rows are drawn.", min=0)] = 42,
    format: Format = "auto",
    split: Split = "train",
    ledger: LedgerPath = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a weighted mixture down: exact counts by largest remainder, rows in the order of the sources."""
    from burnish.curation.mix import as_short, draw, read_weights

    rule = as_short(short)
    paths, weights = read_weights(data)
    inputs = inputs_of(paths, format, split)
    settings = {"weights": list(map(str, weights)), "rows": rows, "short": short, "seed": seed}
    job = Job("mix", inputs, out, settings, ledger, overwrite)
    require_other_file(out, inputs)
    require_writable(out, job.ledger_path, overwrite=overwrite)
    with Counting("rows counted") as progress:
        judge, sizes, counts = draw(inputs, weights, rows=rows, short=rule, seed=seed, progress=progress)
    report = run(job, judge)
    output = Output(as_json=as_json)
    whole, asked = sum(counts), sum(weights)
    table = [
        {"path": path, "rows": size, "taken": count, "asked": float(weight / asked), "share": count / whole}
        for path, weight, size, count in zip(paths, weights, sizes, counts, strict=True)
    ]
    tell(report, output, sources=table)
    if not as_json:
        cells = [
            (
                row["path"],
                f"{row['rows']:,}",
                f"{row['taken']:,}",
                f"{row['asked']:.2%}",
                f"{row['share']:.2%}",
            )
            for row in table
        ]
        output.table(("source", "rows", "taken", "asked", "share"), cells)
