"""Objects out of JSON Lines, streaming, and out of one JSON document, whole.

train.jsonl   {"messages": [...]}\\n{"messages": [...]}\\n     one object per line
train.json    the same, or [{...}, {...}], or {"data": [{...}, {...}]}
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from burnish.data.files import MAX_LINE_BYTES, name_of, open_bytes, read_lines, unreadable, without_mark
from burnish.data.reject import ConversionError, Numbered, Reason, show
from burnish.data.strict import parse_json
from burnish.errors import DataError

MAX_DOCUMENT_BYTES = 1 << 30
"""The largest JSON document that is loaded whole (1 GiB); JSON Lines has no such limit."""


def read_jsonl(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Numbered]:
    """Yield one object per line; blank lines are passed over, a bad line is yielded as its error."""
    for number, line in read_lines(path, max_line_bytes=max_line_bytes):
        if isinstance(line, ConversionError):
            yield number, line
        elif not line.isspace():
            try:
                value = parse_json(line)
            except ConversionError as error:
                yield number, error
            else:
                yield number, value if type(value) is dict else _not_object(value)


def read_json(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Numbered]:
    """Yield the objects of a `.json` file; in an array the number is the element's, counted from 1."""
    if _is_lines(path, max_line_bytes):
        yield from read_jsonl(path, max_line_bytes=max_line_bytes)
        return
    for number, value in enumerate(_rows_of(_load(path)), start=1):
        yield number, value if type(value) is dict else _not_object(value)


def _not_object(value: Any) -> ConversionError:
    """The error for a row that is a list, a number, a string or null."""
    return ConversionError(Reason.NOT_OBJECT, f"{show(value)} is not a JSON object of columns")


def _is_lines(path: Path, max_line_bytes: int) -> bool:
    """Whether a `.json` file holds an object per line: line 1 is a whole object, and another follows.

    A file that begins with `[` is an array, even where it has one element per line.
    """
    first = _load_start(path)
    if not first.startswith(b"{"):
        return False
    # {"data": [...]} alone on line 1 is a document; with a second line below it, it is a row like any.
    lines = (line for _, line in read_lines(path, max_line_bytes=max_line_bytes))
    filled = (line for line in lines if isinstance(line, ConversionError) or not line.isspace())
    two = list(islice(filled, 2))
    if len(two) < 2 or isinstance(two[0], ConversionError):
        return False
    try:
        parse_json(two[0])
    except ConversionError as error:
        # A pretty-printed document breaks after `{`; a row with a key given twice is still a row.
        return error.reason is not Reason.BROKEN_JSON
    return True


def _load_start(path: Path) -> bytes:
    """The file's first bytes after the mark and white space."""
    try:
        with open_bytes(path) as stream:
            return without_mark(path, stream.read(4096)).lstrip()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def _load(path: Path) -> Any:
    """Parse a whole file as one JSON document; there is no row to blame, so any fault is the file's."""
    try:
        with open_bytes(path) as stream:
            source = stream.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None
    if len(source) > MAX_DOCUMENT_BYTES:
        raise DataError(
            f"{name_of(path)}: more than {MAX_DOCUMENT_BYTES:,} bytes in one JSON document",
            rule="a JSON document is loaded whole, so its size is bounded",
            remedy="write one object per line and name the file .jsonl, which is streamed",
        )
    source = without_mark(path, source)
    if not source.strip():
        return []
    try:
        return parse_json(source)
    except ConversionError as error:
        line = source.count(b"\n") + 1
        raise DataError(
            f"{name_of(path)}: {error.reason}: {error.detail} (the document has {line:,} lines)",
            rule="a .json file is an array of objects, an object with a list `data`, or an object per line",
            remedy="correct the document, or name a file of one object per line .jsonl",
        ) from None


def _rows_of(document: Any) -> list[Any]:
    """The list that holds the rows: the document, its `data`, or the single object alone."""
    if isinstance(document, dict):
        data = document.get("data")
        return data if isinstance(data, list) else [document]
    return document if isinstance(document, list) else [document]
