"""The ledger: every row that was dropped, cut or changed, with its place and reason.

    {"row":6,"file":"data/train.jsonl","line":7,"action":"dropped","reason":"duplicate",
     "graded_tokens_lost":null,"detail":"same content as data/train.jsonl:2"}

The law that it keeps: rows read = rows used + rows dropped, at every moment.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from burnish.errors import DataError
from burnish.types import Origin, Rejected, Row

Action = Literal["dropped", "cut", "changed", "kept"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger; `graded_tokens_lost` is None where the row never had tokens."""

    row: int
    file: str
    line: int
    action: Action
    reason: str
    graded_tokens_lost: int | None
    detail: str

    def __post_init__(self) -> None:
        if self.action not in ("dropped", "cut", "changed", "kept"):
            raise ValueError(f"action {self.action!r}")


class Placed(Protocol):
    """A row as far as a ledger asks: its number in reading order, and where it stands."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def origin(self) -> Origin:
        """Its file and line."""


class Ledger:
    """Collects what was lost on the way; a row is dropped once, but may be cut and changed as well."""

    def __init__(self) -> None:
        self._num_read = 0
        self._entries: list[Entry] = []
        self._dropped: set[int] = set()

    @classmethod
    def restored(cls, num_read: int, entries: Iterable[Entry]) -> Ledger:
        """A ledger as it was when its entries were written."""
        ledger = cls()
        ledger._num_read = num_read
        ledger._entries = list(entries)
        ledger._dropped = {entry.row for entry in ledger._entries if entry.action == "dropped"}
        return ledger

    @classmethod
    def joined(cls, parts: Sequence[Ledger]) -> Ledger:
        """The ledgers of sets that are read one after another, as one; rows are numbered on."""
        if len(parts) == 1:
            return parts[0]
        entries: list[Entry] = []
        read = 0
        for part in parts:
            entries += [replace(entry, row=entry.row + read) for entry in part._entries]
            read += part._num_read
        return cls.restored(read, entries)

    def with_entries(self, entries: Iterable[Entry]) -> Ledger:
        """This ledger and what was entered elsewhere of rows that it has read."""
        return Ledger.restored(self._num_read, [*self._entries, *entries])

    def count_read(self, num_rows: int = 1) -> None:
        """Count rows as read; every row is counted, usable or not, and before it is dropped."""
        self._num_read += num_rows

    def drop(
        self, row: Placed, reason: str, *, graded_tokens_lost: int | None = None, detail: str = ""
    ) -> None:
        """Enter a row that is not used at all. A second drop of one row is a mistake of ours."""
        if row.index in self._dropped:
            raise ValueError(f"row {row.index} ({row.origin}) is dropped twice, now for {reason!r}")
        if len(self._dropped) >= self._num_read:
            raise ValueError(f"row {row.index} ({row.origin}) is dropped but was never counted as read")
        self._dropped.add(row.index)
        self._enter(row, "dropped", reason, lost=graded_tokens_lost, detail=detail)

    def reject(self, rejected: Rejected) -> None:
        """Enter a row that could not be read, under its own reason."""
        self.drop(rejected, rejected.reason, detail=rejected.detail)

    def cut(self, row: Row, reason: str, *, graded_tokens_lost: int, detail: str = "") -> None:
        """Enter a row that is used without some of its graded tokens."""
        self._enter(row, "cut", reason, lost=graded_tokens_lost, detail=detail)

    def change(self, row: Row, reason: str, *, detail: str = "") -> None:
        """Enter a row whose text was changed, such as by a template that trims replies."""
        self._enter(row, "changed", reason, lost=0, detail=detail)

    def counts(self) -> dict[str, Any]:
        """Rows read and used, and entries by action and reason, the commonest first."""
        by_action: dict[Action, Counter[str]] = {"dropped": Counter(), "cut": Counter(), "changed": Counter()}
        for entry in self._entries:
            by_action[entry.action][entry.reason] += 1
        return {
            "read": self._num_read,
            "used": self._num_read - len(self._dropped),
            **{action: dict(reasons.most_common()) for action, reasons in by_action.items()},
        }

    def entries(self) -> list[Entry]:
        """The entries in reading order, whatever order they were made in."""
        return sorted(self._entries, key=lambda entry: (entry.row, entry.action, entry.reason, entry.detail))

    def write(self, path: Path) -> None:
        """Write `ledger.jsonl` whole or not at all; the same entries give the same bytes."""
        # A reader sees the old ledger or the new one: a rename within a folder has nothing in between.
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("wb") as stream:
            for entry in self.entries():
                stream.write(orjson.dumps(asdict(entry), option=orjson.OPT_APPEND_NEWLINE))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)

    def _enter(self, row: Placed, action: Action, reason: str, *, lost: int | None, detail: str) -> None:
        origin = row.origin
        self._entries.append(Entry(row.index, origin.file, origin.line, action, reason, lost, detail))


def read_ledger(path: Path) -> Iterator[Entry]:
    """Read a ledger back, entry by entry."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                yield _parse(line, path, number)
    except OSError as error:
        raise _unreadable(str(path), error) from None


def _parse(line: bytes, path: Path, number: int) -> Entry:
    """One line as an entry."""
    try:
        return Entry(**orjson.loads(line))
    except (ValueError, TypeError) as error:
        raise _unreadable(f"{path}:{number}", error) from None


def _unreadable(place: str, error: Exception) -> DataError:
    return DataError(
        f"{place}: {error}",
        rule="a ledger holds one entry per line, as a run wrote it",
        remedy="restore the file, or prepare the run again",
    )
