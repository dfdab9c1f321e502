"""Tables of numbers with a column for each model and a row for each prompt, as leaderboards publish them.

index,alpaca-7b,vicuna-7b       what is no number names the prompt: `instruction`, `dataset`, an index that counts up
0,1.0,1.98                      an empty cell, nan, null or NA: not judged
1,,1.5
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from burnish.data.csv import read_csv
from burnish.data.files import name_of
from burnish.data.reject import ConversionError, show
from burnish.errors import DataError

Array = NDArray[np.float64]

MISSING = {"", "nan", "null", "none", "na", "n/a", "-"}
KEYS = {
    *("", "index", "idx", "id", "row", "prompt", "prompt_id", "question_id", "instruction", "question"),
    *("dataset", "category", "example", "example_id", "unnamed: 0"),
}


@dataclass(frozen=True, slots=True)
class Table:
    """Number columns by name, each over all rows (NaN where missing), and the columns that name the row."""

    path: Path
    numbers: dict[str, Array]
    keys: dict[str, tuple[str, ...]]
    num_rows: int

    def matrix(self, columns: Sequence[str]) -> Array:
        """Columns side by side: (rows, columns)."""
        return np.column_stack([self.numbers[name] for name in columns])


def read_table(path: Path) -> Table:
    """A CSV or TSV, gzipped or not; DataError with file and line where a row or a cell is not what it must be."""
    lines: list[int] = []
    rows: list[dict[str, str]] = []
    for line, row in read_csv(path):
        if isinstance(row, ConversionError):
            raise _bad(path, line, row.detail)
        lines.append(line)
        rows.append(row)
    if not rows:
        raise DataError(
            f"{name_of(path)}: no rows",
            rule="the first line names the columns, and each further line is a prompt",
            remedy="check that the right file was given",
        )
    numbers: dict[str, Array] = {}
    keys: dict[str, tuple[str, ...]] = {}
    for name in rows[0]:
        cells = [row[name].strip() for row in rows]
        column = None if name.strip().lower() in KEYS else _numbers(path, name, cells, lines)
        if column is None or _counts_up(column):
            keys[name] = tuple(cells)
        else:
            numbers[name] = column
    return Table(path, numbers, keys, len(rows))


def _numbers(path: Path, name: str, cells: list[str], lines: list[int]) -> Array | None:
    """The column as numbers; None where its first cell that is there is none."""
    values: list[float] = []
    found = False
    for cell, line in zip(cells, lines, strict=True):
        if cell.lower() in MISSING:
            values.append(math.nan)
            continue
        number = _number(cell)
        if number is None and not found:
            return None
        if number is None:
            raise _bad(path, line, f"{show(cell)} in column {show(name)}")
        found = True
        values.append(number)
    return np.array(values)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _counts_up(column: Array) -> bool:
    """Whether it is an index, from 0 or 1 in steps of 1; up to 2 it may as well be a draw, a loss and a win."""
    return bool(column[0] in (0, 1) and column[-1] > 2 and (np.diff(column) == 1).all())


def _bad(path: Path, line: int, seen: str) -> DataError:
    return DataError(
        f"{name_of(path)}:{line}: {seen}",
        rule="a cell of a model's column is a number, or empty where the prompt was not judged",
        remedy="correct the cell, or empty it",
    )


def rows_as(table: Table, other: Table) -> list[int]:
    """For each row of `table`, the row of `other` for the same prompt: by a column that names both, else by place."""
    for name in table.keys.keys() & other.keys.keys():
        mine, theirs = table.keys[name], other.keys[name]
        if len(set(mine)) == len(mine) and len(set(theirs)) == len(theirs) and set(mine) <= set(theirs):
            place = {key: row for row, key in enumerate(theirs)}
            return [place[key] for key in mine]
    if table.num_rows != other.num_rows:
        raise DataError(
            f"{name_of(other.path)} has {other.num_rows} rows, {name_of(table.path)} has {table.num_rows}",
            rule="both files have a row for each prompt, or a column that names the prompts of both",
            remedy="give both an `index` or `instruction` column, or the same rows in the same order",
        )
    return list(range(table.num_rows))


def find_column(table: Table, *, wanted: str) -> str | None:
    """The column of that name, with or without a word for length around it: `len_vicuna`, `vicuna_length`."""
    if wanted in table.numbers:
        return wanted
    bare = {bare_name(name): name for name in table.numbers}
    return bare.get(bare_name(wanted))


def bare_name(name: str) -> str:
    """A column's name without the words that say it holds lengths."""
    short = re.sub(r"^(len|length|lengths|chars|num_chars)[_ :]+", "", name.strip(), flags=re.IGNORECASE)
    return re.sub(r"[_ :]+(len|length|lengths|chars|num_chars)$", "", short, flags=re.IGNORECASE)
