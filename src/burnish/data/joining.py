"""Encoded rows on disk laid end to end, and a part of them cut out again; no more than a block is in memory.

    row_ends of one folder   1 3        of the next   2 3        joined   1 3 5 6

The bytes are those of one set that is written at once, and of a part those of the folder that it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from burnish.data.store import COLUMNS, FLUSH_ITEMS, SHIFTED, Array, EncodedRows, map_rows


def sizes_of(folder: Path) -> dict[str, int]:
    """How many numbers each column of a folder has."""
    return {name: len(column) for name, column in map_rows(folder).columns.items()}


def join_files(parts: Sequence[Path], folder: Path) -> EncodedRows:
    """Sets end to end, from their folders into a new one. Rows and sources keep their numbers."""
    before = dict.fromkeys(COLUMNS, 0)
    with _columns_in(folder) as files:
        for part in parts:
            columns = map_rows(part).columns
            for name, column in columns.items():
                _write(files[name], column, before[SHIFTED[name]] if name in SHIFTED else 0)
            for name, column in columns.items():
                before[name] += len(column)
    return map_rows(folder)


def cut_out(whole: Path, folder: Path, first: Mapping[str, int], end: Mapping[str, int]) -> None:
    """The part of a set whose columns go from `first` to before `end`, into a new folder: what was joined there."""
    columns = map_rows(whole).columns
    with _columns_in(folder) as files:
        for name, column in columns.items():
            shift = first[SHIFTED[name]] if name in SHIFTED else 0
            _write(files[name], column[first[name] : end[name]], -shift)


@contextmanager
def _columns_in(folder: Path) -> Iterator[dict[str, BinaryIO]]:
    """A new folder's files, open to be written; on the disk when the block ends."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            name: stack.enter_context((folder / name).open("wb")) for name in COLUMNS
        }
        yield files
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())


def _write(file: BinaryIO, column: Array, shift: int) -> None:
    for start in range(0, len(column), FLUSH_ITEMS):
        block = np.asarray(column[start : start + FLUSH_ITEMS])
        file.write((block + block.dtype.type(shift)).data if shift else block.data)
