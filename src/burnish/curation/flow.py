"""Rows in, rows out, and an account of every one: what all verbs of `burnish data` have in common.

    job = Job(verb="filter", inputs=(Input("raw.jsonl"),), out=Path("clean.jsonl"), settings={"min": 5})
    report = sift(job, judge)          judge([Item, Item, ...]) -> [KEPT, removed("too short", "3 words"), ...]

Rows are read in any format that burnish reads, and written as they were read, columns that burnish does not know
included. Where sources differ in format the file holds messages, for one file has one format. What is not finished
lies in `.NAME.draft` beside the output; the same job started again goes on where it was, to the same bytes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from burnish.curation.draft import Draft, stamps_of
from burnish.curation.items import Input, Item, Progress, chunks, formats_of, read_items
from burnish.curation.records import with_columns
from burnish.curation.spread import spread
from burnish.data.ledger import Action, Entry
from burnish.data.reject import Record
from burnish.errors import DataError
from burnish.types import Rejected, Row


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a row: kept or not, why, and `record` where something else is written in its place.

    `copies` is how often it is written, for mixtures that repeat.
    """

    keep: bool
    reason: str = ""
    detail: str = ""
    record: Record | None = None
    copies: int = 1


KEPT = Verdict(keep=True)


def removed(reason: str, detail: str = "") -> Verdict:
    """The verdict on a row that goes: a few countable words, and what was seen."""
    return Verdict(False, reason, detail)


Judge = Callable[[Sequence[Item]], Sequence[Verdict]]
"""One verdict per item, in order. A judge remembers no earlier chunk: a resumed job shows it the later ones only."""


@dataclass(frozen=True)
class Job:
    """What is to be written from what. `settings` is all that decides the outcome; with it a draft is found again."""

    verb: str
    inputs: tuple[Input, ...]
    out: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    ledger: Path | None = None
    overwrite: bool = False
    as_messages: bool = False

    @property
    def ledger_path(self) -> Path:
        """Where the ledger lies: beside the output unless it was named."""
        return self.ledger or self.out.with_name(f"{self.out.name}.ledger.jsonl")


@dataclass
class Report:
    """What a job did, as `--json` prints it: read = kept + removed + unreadable."""

    out: str
    ledger: str
    read: int = 0
    kept: int = 0
    written: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    resumed_at: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the commonest reasons first."""
        fields = asdict(self)
        for name in ("removed", "unreadable", "changed"):
            fields[name] = dict(getattr(self, name).most_common())
        return {**fields, "seconds": round(self.seconds, 3)}


def sift(
    job: Job, judge: Judge, *, processes: int = 1, progress: Progress = lambda done, total: None
) -> Report:
    """Write the rows that the judge keeps, and the ledger; with `processes` > 1 the judge is pickled to children."""
    report = Report(str(job.out), str(job.ledger_path))
    started = time.monotonic()
    as_messages = len(formats_of(job.inputs)) > 1 or job.as_messages
    with Draft(job.out, job.ledger_path, key=job_key(job), overwrite=job.overwrite) as draft:
        _restore(report, draft.state)
        stream = chunks(islice(read_items(job.inputs), report.read, None))
        for chunk, verdicts in spread(_Asked(judge), stream, processes=processes):
            _enter(chunk, verdicts, draft, report, as_messages=as_messages)
            draft.reach(_state(report))
            progress(report.read, None)
        if not report.kept:
            draft.keep_ledger()
            raise _nothing_kept(job, report)
        draft.finish()
    report.seconds = time.monotonic() - started
    return report


def job_key(job: Job) -> dict[str, Any]:
    """All that decides the bytes of the output: the same key goes on with a draft, another starts anew."""
    sources = [{**asdict(source), "files": stamps_of(source.path)} for source in job.inputs]
    return {
        "verb": job.verb,
        "settings": dict(job.settings),
        "inputs": sources,
        "as_messages": job.as_messages,
        "version": 1,
    }


@dataclass(frozen=True)
class _Asked:
    """The judge over the readable items of a chunk; an object, because children cannot unpickle a closure."""

    judge: Judge

    def __call__(self, chunk: Sequence[Item | Rejected]) -> list[Verdict]:
        items = [item for item in chunk if isinstance(item, Item)]
        verdicts = list(self.judge(items))
        if len(verdicts) != len(items):
            raise ValueError(f"{len(verdicts)} verdicts on {len(items)} rows")
        return verdicts


def _enter(
    chunk: Sequence[Item | Rejected],
    verdicts: Sequence[Verdict],
    draft: Draft,
    report: Report,
    *,
    as_messages: bool,
) -> None:
    """Write a judged chunk: rows that stay to the output, and of every row what became of it to the ledger."""
    answers = iter(verdicts)
    for item in chunk:
        report.read += 1
        if isinstance(item, Rejected):
            report.unreadable[item.reason] += 1
            draft.enter(_entry(item, "dropped", item.reason, item.detail))
            continue
        verdict = next(answers)
        if not verdict.keep:
            report.removed[verdict.reason] += 1
            draft.enter(_entry(item.row, "dropped", verdict.reason, verdict.detail))
            continue
        report.kept += 1
        action: Action = "kept"
        if verdict.record is not None and verdict.reason:
            action = "changed"
            report.changed[verdict.reason] += 1
        record = verdict.record or _as_written(item, as_messages)
        report.written += verdict.copies
        for _ in range(verdict.copies):
            draft.write(record)
        draft.enter(_entry(item.row, action, verdict.reason, verdict.detail))


def _as_written(item: Item, as_messages: bool) -> Record:
    """The row as it was read, or as messages with its other columns."""
    return with_columns(item.row.content, item.record, item.format)[0] if as_messages else item.record


def _entry(row: Row | Rejected, action: Action, reason: str, detail: str) -> Entry:
    return Entry(row.index, row.origin.file, row.origin.line, action, reason, None, detail)


COUNTS = ("read", "kept", "written", "removed", "unreadable", "changed")


def _state(report: Report) -> dict[str, Any]:
    return {name: getattr(report, name) for name in COUNTS}


def _restore(report: Report, state: Mapping[str, Any]) -> None:
    """The counts as they were when the draft was left."""
    for name in COUNTS if state else ():
        setattr(report, name, type(getattr(report, name))(state[name]))
    report.resumed_at = report.read


def _nothing_kept(job: Job, report: Report) -> DataError:
    reasons = ", ".join(
        f"{count:,} {name}" for name, count in (report.removed + report.unreadable).most_common(4)
    )
    return DataError(
        f"{job.out}: 0 of {report.read:,} rows are kept ({reasons})",
        rule="a data set has rows; an empty file is not written",
        remedy=f"see {job.ledger_path} for the reason of each row, and loosen the rule",
    )
