"""`burnish data dedup DATA... --out FILE`: leave one of each group of equal or nearly equal rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from burnish.cli.data.options import (
    AsJson,
    Counting,
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
from burnish.curation.draft import require_writable
from burnish.curation.flow import Job, job_key
from burnish.curation.items import require_other_file
from burnish.curation.texts import as_part
from burnish.errors import UsageError

KEEP = ("first", "longest", "score")


def command(
    data: Paths,
    out: Out,
    on: Annotated[str, typer.Option("--on", help="What is compared: both, prompts or responses.")] = "both",
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold",
            help="Jaccard similarity of 5-character pieces below which rows do not repeat each other; 5% of edited "
            "characters leave 0.55 or more.",
        ),
    ] = 0.5,
    edits: Annotated[
        float,
        typer.Option(
            "--edits",
            help="Share of characters or words in which repeats may differ; 1 looks at --threshold alone, and "
            "merges rows that differ in numbers only.",
        ),
    ] = 0.06,
    exact: Annotated[
        bool, typer.Option("--exact", help="Only rows of equal text (after NFKC, case and white space).")
    ] = False,
    keep: Annotated[
        str, typer.Option("--keep", help="Which row of a group stays: first, longest or score.")
    ] = "first",
    scores: Annotated[
        Path | None, typer.Option("--scores", help="For --keep score: JSON Lines of `key` and numbers.")
    ] = None,
    score: Annotated[str, typer.Option("--score", help="Name of the number in --scores.")] = "score",
    format: Format = "auto",
    split: Split = "train",
    ledger: LedgerPath = None,
    processes: Processes = 1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Leave one of each group of equal or nearly equal rows; the others are in the ledger with the row they repeat."""
    from burnish.curation.dedup import Question, find_repeats  # numpy takes a tenth of a second
    from burnish.curation.score import read_scores

    output = Output(as_json=as_json)
    _require(threshold, edits, keep, scores)
    question = Question(as_part(on), 1.0 if exact else threshold, keep, edits)
    settings = {"question": question, "scores": str(scores), "score": score}
    job = Job("dedup", inputs_of(data, format, split), out, settings, ledger, overwrite)
    require_other_file(out, job.inputs)
    require_writable(out, job.ledger_path, overwrite=overwrite)
    with Counting("rows sketched") as progress:
        repeats = find_repeats(
            job.inputs,
            question,
            folder=out.with_name(f".{out.name}.sketches"),
            key=job_key(job),
            scores=read_scores(scores, score) if scores else None,
            processes=processes,
            progress=progress,
        )
    tell(run(job, repeats), output)


def _require(threshold: float, edits: float, keep: str, scores: Path | None) -> None:
    if not 0.3 <= threshold <= 1.0:
        raise UsageError(
            f"--threshold {threshold}",
            rule="a similarity is between 0.3 (below, unlike rows are alike) and 1 (equal)",
            remedy="write 0.5 for 5% of edited characters, 0.8 for 2%",
        )
    if not 0.0 <= edits <= 1.0:
        raise UsageError(
            f"--edits {edits}", rule="a share is between 0 and 1", remedy="write 0.06 for six in a hundred"
        )
    if keep not in KEEP:
        raise UsageError(
            f"--keep {keep!r}", rule=f"a group is kept by {', '.join(KEEP)}", remedy="write --keep first"
        )
    if (keep == "score") != (scores is not None):
        raise UsageError(
            f"--keep {keep} {'without' if scores is None else 'with'} --scores",
            rule="scores decide which row stays, and come from a file",
            remedy="write --keep score --scores FILE",
        )
