"""An output on its way: rows and ledger in a journal beside it, renamed into place when the last row is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from burnish.curation.journal import Journal
from burnish.data.files import find_files, name_of
from burnish.data.ledger import Entry
from burnish.data.read import is_on_hub
from burnish.data.reject import Record
from burnish.errors import DataError, UsageError

OUT_SUFFIXES = (".jsonl", ".parquet")
_ROWS, _LEDGER = "rows.jsonl", "ledger.jsonl"


class Draft(Journal):
    """The rows and the ledger of one output while they are written."""

    def __init__(self, out: Path, ledger: Path, *, key: Mapping[str, Any], overwrite: bool) -> None:
        require_writable(out, ledger, overwrite=overwrite)
        super().__init__(out.with_name(f".{out.name}.draft"), (_ROWS, _LEDGER), key=key)
        self._out, self._ledger = out, ledger

    def write(self, record: Record) -> None:
        """One row for the output."""
        self.streams[_ROWS].write(orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE))

    def enter(self, entry: Entry) -> None:
        """One line for the ledger."""
        self.streams[_LEDGER].write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def keep_ledger(self) -> None:
        """Put the ledger in its place, and give up the rows: there are none."""
        self.sync()
        (self.folder / _LEDGER).replace(self._ledger)
        self.remove()

    def finish(self) -> None:
        """Put ledger and rows in their places."""
        self.sync()
        rows = self.folder / _ROWS
        if self._out.suffix.lower() == ".parquet":
            from burnish.curation.parquet import (
                write_parquet,
            )  # importing pyarrow takes a quarter of a second

            rows = write_parquet(rows, self.folder / "rows.parquet")
        (self.folder / _LEDGER).replace(self._ledger)
        rows.replace(self._out)
        self.remove()


def stamps_of(path: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every file that a path names: another stamp is another input."""
    if is_on_hub(path):
        return []
    found = [(file, file.stat()) for file in find_files(path)]
    return [(name_of(file), status.st_size, status.st_mtime_ns) for file, status in found]


def require_writable(out: Path, *others: Path, overwrite: bool) -> None:
    """Refuse an ending that names no format, a folder that is not there, and a file that is."""
    if out.suffix.lower() not in OUT_SUFFIXES:
        raise UsageError(
            f"{out}: the ending {out.suffix!r}",
            rule=f"an output's ending names its format: {' or '.join(OUT_SUFFIXES)}",
            remedy=f"write --out {out.with_suffix('.jsonl')}",
        )
    for path in (out, *others):
        if not path.parent.is_dir():
            raise DataError(
                f"{path.parent}: no such folder",
                rule="an output is written into a folder that exists",
                remedy=f"mkdir -p {path.parent}",
            )
        if path.exists() and not overwrite:
            raise UsageError(
                f"{path}: exists already",
                rule="a file that exists is not written over unasked",
                remedy="name another file with --out, or say --overwrite",
            )
