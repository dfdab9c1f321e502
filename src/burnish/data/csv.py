"""Rows out of CSV and TSV: the first line names the columns, every value is a string.

    prompt,completion
    "Name a
    colour.",red            <- one row, whose place is the line it begins on: 2

An empty cell is the empty string, never null.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from burnish.data.files import MAX_LINE_BYTES, name_of, read_lines
from burnish.data.reject import ConversionError, Numbered, Reason, show
from burnish.errors import DataError


def read_csv(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Numbered]:
    """Yield one dict per row, with strict quoting; a row of another width is yielded as its error."""
    # The limit is the process's own; a cell longer than a line may be would be refused by its line anyway.
    csv.field_size_limit(max_line_bytes)
    delimiter = "\t" if path.name.lower().endswith(".tsv") else ","
    reader = csv.reader(_text_lines(path, max_line_bytes), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote left open takes every later row into one cell: not one row's fault, the file's.
            if "unexpected end of data" in str(error):
                raise _open_quote(path, line) from None
            if header is None:
                raise _bad_header(path, str(error)) from None
            yield line, ConversionError(Reason.BROKEN_CSV, str(error))
            continue
        if header is None:
            header = _checked_header(path, cells)
        elif cells:
            yield line, _record(header, cells)


def _record(header: list[str], cells: list[str]) -> dict[str, str] | ConversionError:
    """Pair the cells with the columns, if there are as many and all of them are UTF-8."""
    if len(cells) != len(header):
        detail = f"{len(cells)} cells in a table of {len(header)} columns, beginning {show(cells[0])}"
        return ConversionError(Reason.BROKEN_CSV, detail)
    for column, cell in zip(header, cells, strict=True):
        # Bytes that are no UTF-8 were kept as lone surrogates, so that the row around them still parses.
        if not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell):
            return ConversionError(Reason.INVALID_UTF8, f"in column {show(column)}: {cell[:40]!a}")
    return dict(zip(header, cells, strict=True))


def _text_lines(path: Path, max_line_bytes: int) -> Iterator[str]:
    """The file's lines as text; a physical line that is too long cannot be given back to one row."""
    for number, line in read_lines(path, max_line_bytes=max_line_bytes):
        if isinstance(line, ConversionError):
            raise DataError(
                f"{name_of(path)}:{number}: {line.reason}: {line.detail}",
                rule="quoting spans lines in CSV, so no line can be left out",
                remedy="shorten the line, or convert the table to JSON Lines or Parquet",
            )
        yield line.decode("utf-8", "surrogateescape")


def _checked_header(path: Path, cells: list[str]) -> list[str]:
    """The column names, which are all different."""
    if not cells:
        raise _bad_header(path, "the first line is blank")
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise _bad_header(path, f"column {show(twice[0])} stands twice")
    return cells


def _bad_header(path: Path, seen: str) -> DataError:
    return DataError(
        f"{name_of(path)}:1: {seen}",
        rule="the first line of a CSV names each column once",
        remedy="correct the first line",
    )


def _open_quote(path: Path, line: int) -> DataError:
    return DataError(
        f"{name_of(path)}:{line}: a quote opens in this row and never closes",
        rule='a cell with a comma, a quote or a line end is quoted, and a quote in it is doubled: ""',
        remedy="close the quote; as it stands, every row after it is lost in one cell",
    )
