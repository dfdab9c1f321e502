"""Encoded rows as a few flat arrays, in memory or mapped from disk: a set of 15M rows is no list of lists.

Two rows, the second with two views:

    ids          a b c d | x y | x y z        int32, all views end to end
    view_ends    4         6     9            where each view ends in `ids`
    row_ends     1               3            where each row ends among the views
    run_lengths  2 2     | 1 1 | 2 1          runs of one weight: 0 0 1 1, 0 1, 0 0 1
    run_weights  0 1     | 0 1 | 0 1          float64, so that a weight comes back as it went in

A set on disk is a folder of such arrays and `MANIFEST.json`, which holds every file's size and SHA-256.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import orjson

from burnish.errors import DataError
from burnish.types import Example, Origin, Row

MANIFEST = "MANIFEST.json"

COLUMNS = {
    "ids": "i",
    "run_lengths": "i",
    "run_weights": "d",
    "turns": "i",
    "view_ends": "q",
    "run_ends": "q",
    "turn_ends": "q",
    "view_rows": "q",
    "view_sources": "i",
    "view_cuts": "q",
    "row_ends": "q",
}
"""Each column's letter for array.array; numpy reads the same bytes by the same letter."""

FLUSH_ITEMS = 1 << 20
"""So many numbers of a column are in memory while it is written."""

Array = np.ndarray[tuple[int], np.dtype[Any]]


@dataclass(frozen=True)
class EncodedRows(Sequence[tuple[Example, ...]]):
    """Rows, each a tuple of the sequences that it gave; `columns` are the arrays above, by name."""

    columns: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.columns["row_ends"])

    @overload
    def __getitem__(self, index: int) -> tuple[Example, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Example, ...]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Example, ...] | list[tuple[Example, ...]]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = _bounds(self.columns["row_ends"], index)
        return tuple(self.view(k) for k in range(start, end))

    @property
    def num_views(self) -> int:
        """How many sequences there are in all."""
        return len(self.columns["view_ends"])

    @property
    def num_tokens(self) -> int:
        """How many tokens there are in all."""
        return len(self.columns["ids"])

    @property
    def num_graded(self) -> int:
        """How many tokens are targets."""
        return int(self.columns["run_lengths"][self.columns["run_weights"] != 0.0].sum(dtype=np.int64))

    @property
    def lengths(self) -> Array:
        """The tokens of each view."""
        return np.diff(self.columns["view_ends"], prepend=0)

    @property
    def row_lengths(self) -> Array:
        """The tokens of each row, those of all its views together."""
        return np.diff(self.columns["view_ends"][self.columns["row_ends"] - 1], prepend=0)

    @property
    def row_sources(self) -> Array:
        """The source of each row."""
        sources: Array = self.columns["view_sources"][self.columns["row_ends"] - 1]
        return sources

    @property
    def row_graded(self) -> Array:
        """The targets of each row."""
        graded = np.where(self.columns["run_weights"] != 0.0, self.columns["run_lengths"], 0)
        ends = np.concatenate([[0], np.cumsum(graded, dtype=np.int64)])
        return np.diff(ends[self.columns["run_ends"][self.columns["row_ends"] - 1]], prepend=0)

    def views(self) -> Iterator[Example]:
        """All sequences, in order."""
        return map(self.view, range(self.num_views))

    def view(self, number: int) -> Example:
        """One sequence, by its place among all."""
        columns = self.columns
        start, end = _bounds(columns["view_ends"], number)
        first, last = _bounds(columns["run_ends"], number)
        turns = slice(*_bounds(columns["turn_ends"], number))
        weights = np.repeat(columns["run_weights"][first:last], columns["run_lengths"][first:last])
        return Example(
            row=int(columns["view_rows"][number]),
            source=int(columns["view_sources"][number]),
            turns=tuple(columns["turns"][turns].tolist()),
            input_ids=columns["ids"][start:end].tolist(),
            weights=weights.tolist(),
            cut=int(columns["view_cuts"][number]),
        )

    def digest(self) -> bytes:
        """A hash of all ids and weights in order, and of where views and rows end."""
        found = hashlib.blake2b(digest_size=16)
        for name in ("ids", "run_lengths", "run_weights", "view_ends", "row_ends"):
            found.update(np.ascontiguousarray(self.columns[name]).data)
        return found.digest()


class RowsWriter:
    """Collects encoded rows, in memory or, given a folder, in files there."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._columns: dict[str, array[Any]] = {name: array(letter) for name, letter in COLUMNS.items()}
        self._counts = dict.fromkeys(COLUMNS, 0)
        self._files: dict[str, BinaryIO] = {}
        if folder is not None:
            folder.mkdir(parents=True)
            self._files = {name: (folder / name).open("wb") for name in COLUMNS}

    def append(self, views: Sequence[Example]) -> None:
        """Add one row."""
        for view in views:
            self._append_view(view)
        self._end("row_ends", "view_ends")

    def finish(self) -> EncodedRows:
        """All rows that were added, ready to be read."""
        if self._folder is None:
            return EncodedRows({name: np.array(column) for name, column in self._columns.items()})
        for name, file in self._files.items():
            self._flush(name)
            file.flush()
            os.fsync(file.fileno())
            file.close()
        return map_rows(self._folder)

    def _append_view(self, view: Example) -> None:
        columns = self._columns
        columns["ids"].extend(view.input_ids)
        for weight, run in groupby(view.weights):
            columns["run_weights"].append(weight)
            columns["run_lengths"].append(len(list(run)))
        columns["turns"].extend(view.turns)
        for ends, items in (("view_ends", "ids"), ("run_ends", "run_lengths"), ("turn_ends", "turns")):
            self._end(ends, items)
        columns["view_rows"].append(view.row)
        columns["view_sources"].append(view.source)
        columns["view_cuts"].append(view.cut)
        if self._folder is not None and len(columns["ids"]) > FLUSH_ITEMS:
            for name in columns:
                self._flush(name)

    def _end(self, ends: str, items: str) -> None:
        self._columns[ends].append(self._counts[items] + len(self._columns[items]))

    def _flush(self, name: str) -> None:
        column = self._columns[name]
        column.tofile(self._files[name])
        self._counts[name] += len(column)
        del column[:]


SHIFTED = {"view_ends": "ids", "run_ends": "run_lengths", "turn_ends": "turns", "row_ends": "view_ends"}
"""Columns of places in another column."""


def join_rows(
    parts: Sequence[EncodedRows], *, first_rows: Sequence[int], first_sources: Sequence[int]
) -> EncodedRows:
    """Sets end to end, in memory; the rows and sources of each are numbered on from the given ones."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, list[Array]] = {name: [] for name in COLUMNS}
    before = dict.fromkeys(COLUMNS, 0)
    for part, row, source in zip(parts, first_rows, first_sources, strict=True):
        shifts = {name: before[items] for name, items in SHIFTED.items()}
        shifts |= {"view_rows": row, "view_sources": source}
        for name, column in part.columns.items():
            columns[name].append(column + shifts[name] if name in shifts else column)
        for name, column in part.columns.items():
            before[name] += len(column)
    return EncodedRows(
        {name: np.concatenate(columns[name]).astype(letter, copy=False) for name, letter in COLUMNS.items()}
    )


def map_rows(folder: Path) -> EncodedRows:
    """The rows of a folder, their arrays mapped from its files."""
    return EncodedRows({name: _mapped(folder / name, letter) for name, letter in COLUMNS.items()})


def _mapped(path: Path, letter: str) -> Array:
    # An empty file cannot be mapped.
    if not path.stat().st_size:
        return np.empty(0, dtype=letter)
    return np.memmap(path, dtype=letter, mode="r")


class StoredOrigins(Mapping[int, Origin]):
    """Where each row was read, by its number; rows of one file lie together, so a run of them is one entry."""

    def __init__(self, runs: Sequence[tuple[int, int, str, int]]) -> None:
        # (first row, rows, file, first line): rows 0..9 of a.jsonl are (0, 10, "a.jsonl", 1).
        self._runs = list(runs)
        self._firsts = [run[0] for run in self._runs]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> StoredOrigins:
        """The origins of rows, in any order."""
        origins = cls([])
        for row in sorted(rows, key=lambda row: row.index):
            origins.add(row.index, row.origin)
        return origins

    def add(self, row: int, origin: Origin) -> None:
        """One more row, whose number is above those of all others."""
        if self._runs:
            first, count, file, line = self._runs[-1]
            if (row - first, origin.line - line, origin.file) == (count, count, file):
                self._runs[-1] = (first, count + 1, file, line)
                return
        self._runs.append((row, 1, origin.file, origin.line))
        self._firsts.append(row)

    def __getitem__(self, row: int) -> Origin:
        found = bisect_right(self._firsts, row) - 1
        if found >= 0:
            first, count, file, line = self._runs[found]
            if row < first + count:
                return Origin(file, line + row - first)
        raise KeyError(row)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(range(first, first + count) for first, count, _, _ in self._runs)

    def __len__(self) -> int:
        return sum(count for _, count, _, _ in self._runs)

    @classmethod
    def joined(cls, parts: Sequence[StoredOrigins], first_rows: Sequence[int]) -> StoredOrigins:
        """Origins of sets end to end."""
        return cls(
            [
                (first + shift, count, file, line)
                for part, shift in zip(parts, first_rows, strict=True)
                for first, count, file, line in part.as_list()
            ]
        )

    def within(self, first: int, end: int) -> list[tuple[int, int, str, int]]:
        """The runs of the rows from `first` to before `end`, for JSON."""
        near = self._runs[max(0, bisect_right(self._firsts, first) - 1) : bisect_right(self._firsts, end - 1)]
        return [
            (
                max(start, first),
                min(start + count, end) - max(start, first),
                file,
                line + max(0, first - start),
            )
            for start, count, file, line in near
            if max(start, first) < min(start + count, end)
        ]

    def as_list(self) -> list[tuple[int, int, str, int]]:
        """The runs, for JSON."""
        return self._runs


def seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest of a folder's files, and flush it: whatever differs from it later is seen."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in files
    }
    manifest = folder / MANIFEST
    with manifest.open("wb") as file:
        file.write(orjson.dumps({**about, "files": entries}, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())


def opened(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed folder whose every file has the size and hash it had; DataError otherwise."""
    try:
        manifest: dict[str, Any] = orjson.loads((folder / MANIFEST).read_bytes())
        for name, entry in manifest["files"].items():
            path = folder / name
            if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
                raise _damaged(f"{path} differs from its manifest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"{folder}: {error}") from None
    return manifest


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(saw: str) -> DataError:
    return DataError(
        saw,
        rule="stored encodings are used only if every file is as it was written",
        remedy="delete the folder; the rows are encoded again",
    )


def _bounds(ends: Array, number: int) -> tuple[int, int]:
    return (int(ends[number - 1]) if number else 0), int(ends[number])
