"""The words that all verbs of `burnish data` take, what they show while they work, and what they say at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from burnish.cli.output import Output
from burnish.curation.flow import Job, Judge, Report, sift
from burnish.curation.items import Input, require_other_file

Paths = Annotated[
    list[str], typer.Argument(metavar="DATA...", help="Files, folders, globs, or names on the hub.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write: .jsonl or .parquet.")]
Format = Annotated[
    str,
    typer.Option("--format", help="auto, messages, sharegpt, alpaca, prompt-completion or text."),
]
Split = Annotated[str, typer.Option("--split", help="Split of a data set on the hub.")]
LedgerPath = Annotated[
    Path | None, typer.Option("--ledger", help="Where the ledger goes (default: OUT.ledger.jsonl).")
]
Processes = Annotated[int, typer.Option("--processes", "-p", help="Processes that work on rows.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over files that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]

SOON_SECONDS = 2.0
"""What takes less is not reported on."""

LINE_SECONDS = 10.0
"""Where there is no terminal to redraw, progress is a line this often."""


class Counting:
    """Rows done, on stderr, where it takes long enough to ask; used as a context manager and called with counts."""

    def __init__(self, what: str = "rows") -> None:
        self._what = what
        self._console = Console(stderr=True, highlight=False)
        self._started = self._printed = time.monotonic()
        self._status: Any = None

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, done: int, total: int | None = None) -> None:
        """So many rows are done, of so many where that is known."""
        now = time.monotonic()
        if now - self._started < SOON_SECONDS:
            return
        of = f" of {total:,}" if total is not None else ""
        line = f"{done:,}{of} {self._what}, {done / (now - self._started):,.0f} a second"
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(line)
                self._status.start()
            self._status.update(line)
        elif now - self._printed > LINE_SECONDS:
            self._printed = now
            self._console.print(f"  {line}")


def inputs_of(paths: list[str], format: str, split: str) -> tuple[Input, ...]:
    """The command line's sources."""
    return tuple(Input(path, format, split) for path in paths)


def run(job: Job, judge: Judge, *, processes: int = 1) -> Report:
    """Do a job, with progress on stderr."""
    require_other_file(job.out, job.inputs)
    with Counting() as progress:
        return sift(job, judge, processes=processes, progress=progress)


def tell(report: Report, output: Output, **more: Any) -> None:
    """The end of a job: one line of JSON, or what was kept and removed in words."""
    output.emit({**report.as_dict(), **more})
    if output.as_json:
        return
    resumed = f", gone on with at row {report.resumed_at:,}" if report.resumed_at else ""
    output.say(
        f"{report.out}: {report.kept:,} of {report.read:,} rows kept in {report.seconds:.1f} s{resumed}"
    )
    lines = [
        *(("removed", reason, count) for reason, count in report.removed.most_common()),
        *(("unreadable", reason, count) for reason, count in report.unreadable.most_common()),
        *(("changed", reason, count) for reason, count in report.changed.most_common()),
    ]
    if lines:
        output.table(("rows", "", "reason"), [(f"{count:,}", what, reason) for what, reason, count in lines])
    output.say(f"the place and reason of each row: {report.ledger}")
