"""An output on its way: rows and ledger in a folder of their own, renamed into place when the last row is written.

    .clean.jsonl.draft/   job.json     what is being made, from which files
                          rows.jsonl   the rows kept so far        ledger.jsonl   what became of every row so far
                          state.json   how far that is: counts, and the sizes of both files at that moment
                          lock         held by the process that writes

A draft that was left is cut back to the sizes in its state and gone on with, if it is of the same job.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from burnish.data.files import find_files, name_of
from burnish.data.ledger import Entry
from burnish.data.read import is_on_hub
from burnish.data.reject import Record
from burnish.errors import DataError, UsageError

SAVE_SECONDS = 2.0
"""How much work an interruption costs at most."""

OUT_SUFFIXES = (".jsonl", ".parquet")


def stamps_of(path: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every file that a path names: another stamp is another input."""
    if is_on_hub(path):
        return []
    found = [(file, file.stat()) for file in find_files(path)]
    return [(name_of(file), status.st_size, status.st_mtime_ns) for file, status in found]


class Draft:
    """The files of one output while they are written; used as a context manager, which holds the lock."""

    def __init__(self, out: Path, ledger: Path, *, key: Mapping[str, Any], overwrite: bool) -> None:
        _require_writable(out, ledger, overwrite=overwrite)
        self._out, self._ledger = out, ledger
        self.folder = out.with_name(f".{out.name}.draft")
        self._key = orjson.loads(orjson.dumps(key, default=str, option=orjson.OPT_SORT_KEYS))
        self._saved = time.monotonic()
        self._pending: Mapping[str, Any] = {}
        self.state: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UsageError(
                f"{self._out}: another process is writing it",
                rule="one process writes one file",
                remedy="wait for the other one, or name another file with --out",
            ) from None
        self.state = self._left_behind()
        sizes = self.state.pop("sizes", [0, 0])
        if not self.state:
            (self.folder / "job.json").write_bytes(orjson.dumps(self._key))
        self._rows = _open_at(self.folder / "rows.jsonl", sizes[0])
        self._entries = _open_at(self.folder / "ledger.jsonl", sizes[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        self._entries.close()
        self._lock.close()

    def write(self, record: Record) -> None:
        """One row for the output."""
        self._rows.write(orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE))

    def enter(self, entry: Entry) -> None:
        """One line for the ledger."""
        self._entries.write(orjson.dumps(asdict(entry), option=orjson.OPT_APPEND_NEWLINE))

    def reach(self, state: Mapping[str, Any]) -> None:
        """All rows up to here are written; saved every two seconds, for that is what a resume goes back to."""
        now = time.monotonic()
        if now - self._saved >= SAVE_SECONDS:
            self._saved = now
            self.save(state)

    def save(self, state: Mapping[str, Any]) -> None:
        """Make what was written last, and say how far it is."""
        self._sync()
        sizes = [self._rows.tell(), self._entries.tell()]
        partial = self.folder / "state.json.partial"
        partial.write_bytes(orjson.dumps({**state, "sizes": sizes}))
        partial.replace(self.folder / "state.json")

    def keep_ledger(self) -> None:
        """Put the ledger in its place, and give up the rows: there are none."""
        self._sync()
        (self.folder / "ledger.jsonl").replace(self._ledger)
        shutil.rmtree(self.folder)

    def finish(self) -> None:
        """Put ledger and rows in their places."""
        self._sync()
        rows = self.folder / "rows.jsonl"
        if self._out.suffix == ".parquet":
            from burnish.curation.parquet import (
                write_parquet,
            )  # importing pyarrow takes a quarter of a second

            rows = write_parquet(rows, self.folder / "rows.parquet")
        (self.folder / "ledger.jsonl").replace(self._ledger)
        rows.replace(self._out)
        shutil.rmtree(self.folder)

    def _sync(self) -> None:
        for stream in (self._rows, self._entries):
            stream.flush()
            os.fsync(stream.fileno())

    def _left_behind(self) -> dict[str, Any]:
        """The state of a draft of this very job, or {} where there is none that can be gone on with."""
        try:
            state = orjson.loads((self.folder / "state.json").read_bytes())
            same = orjson.loads((self.folder / "job.json").read_bytes()) == self._key
            sizes = [(self.folder / name).stat().st_size for name in ("rows.jsonl", "ledger.jsonl")]
        except (OSError, ValueError):
            return {}
        enough = same and all(size >= wanted for size, wanted in zip(sizes, state["sizes"], strict=True))
        if not enough:
            (self.folder / "state.json").unlink()
        return state if enough else {}


def _open_at(path: Path, size: int) -> BinaryIO:
    """The file cut to a size, open for writing at its end."""
    stream = path.open("r+b" if path.exists() else "w+b")
    stream.truncate(size)
    stream.seek(size)
    return stream


def _require_writable(out: Path, ledger: Path, *, overwrite: bool) -> None:
    """Refuse an ending that names no format, a folder that is not there, and a file that is."""
    if out.suffix.lower() not in OUT_SUFFIXES:
        raise UsageError(
            f"{out}: the ending {out.suffix!r}",
            rule=f"an output's ending names its format: {' or '.join(OUT_SUFFIXES)}",
            remedy=f"write --out {out.with_suffix('.jsonl')}",
        )
    if not out.parent.is_dir():
        raise DataError(
            f"{out.parent}: no such folder",
            rule="an output is written into a folder that exists",
            remedy=f"mkdir -p {out.parent}",
        )
    for path in (out, ledger):
        if path.exists() and not overwrite:
            raise UsageError(
                f"{path}: exists already",
                rule="a file that exists is not written over unasked",
                remedy="name another file with --out, or say --overwrite",
            )
