"""Read a source: its files, their format, and every row in order, usable or rejected.

    read_source(DatasetSource(path="data/train.jsonl"), source_index=0, first_index=0)
    -> Row(index=0, source=0, origin=Origin("data/train.jsonl", 1), content=Conversation(...))
       Rejected(index=1, ..., origin=Origin("data/train.jsonl", 2), reason="broken JSON", detail=...)

A fault of a row is a `Rejected` at its line, and reading goes on; a fault of the file (missing,
damaged, nothing readable in it) raises DataError. Reading streams: no more than the longest line
and the first rows are held, and the order is that of the sorted files and their lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

from burnish.data.convert import Detection, detect_format, to_content
from burnish.data.csv import read_csv
from burnish.data.detect import NEEDS
from burnish.data.document import read_text
from burnish.data.files import MAX_LINE_BYTES, find_files, name_of, suffix_of
from burnish.data.jsonl import read_json, read_jsonl
from burnish.data.reject import ConversionError, Numbered, Record
from burnish.errors import DataError, UsageError
from burnish.types import Content, Origin, Rejected, Row

DETECT_ROWS = 100
_DETECT_LINES = 1_000  # where fewer than 100 of so many lines can be read, those that can must do

Placed = tuple[str, int, Record | ConversionError]

Convert = Callable[[Record], Content]
"""Makes content of a record, or raises ConversionError."""


class Source(Protocol):
    """What reading asks of a dataset source; `recipe.schema.DatasetSource` has it all."""

    @property
    def path(self) -> str:
        """A file, a folder, a glob, or a name on the hub."""

    @property
    def split(self) -> str | None:
        """The split of a hub dataset; files have none."""

    @property
    def format(self) -> str:
        """`auto` or one of the five formats."""

    @property
    def max_samples(self) -> int | None:
        """How many usable rows are read at most."""


def read_source(
    source: Source,
    *,
    source_index: int,
    first_index: int,
    max_line_bytes: int = MAX_LINE_BYTES,
    convert: Convert | None = None,
) -> Iterator[Row | Rejected]:
    """Yield every row of the source in order, numbered from `first_index`.

    `max_samples` ends the reading after that many usable rows; rejected ones do not count. `convert` makes content of
    records that have no format.
    """
    if convert is None:
        format, stream = _open_source(source, max_line_bytes)
        convert = partial(to_content, format=format.format)
    else:
        stream = _records(source, max_line_bytes)
    pairs = _rows(stream, source, convert, source_index=source_index, first_index=first_index)
    return (row for row, _ in pairs)


def read_records(
    source: Source, *, source_index: int, first_index: int, max_line_bytes: int = MAX_LINE_BYTES
) -> tuple[Detection, Iterator[tuple[Row | Rejected, Record]]]:
    """The source's format, and its rows as `read_source` yields them, each beside the record it was made of."""
    format, stream = _open_source(source, max_line_bytes)
    convert = partial(to_content, format=format.format)
    return format, _rows(stream, source, convert, source_index=source_index, first_index=first_index)


def inspect_source(source: Source) -> Detection:
    """The format that `read_source` would read the source in, and why."""
    return _open_source(source, MAX_LINE_BYTES)[0]


def raw_records(source: Source) -> Iterator[Placed]:
    """Every record with its file and line, of any columns: for files that are read and not trained on."""
    return _records(source, MAX_LINE_BYTES)


def _rows(
    stream: Iterator[Placed], source: Source, convert: Convert, *, source_index: int, first_index: int
) -> Iterator[tuple[Row | Rejected, Record]]:
    """Convert each record where it stands; a record that could not be read at all is {}."""
    taken = 0
    for index, (file, line, record) in enumerate(stream, start=first_index):
        # Rejected rows take a number too, so that a row's number is the same under any `on_bad_row`.
        origin = Origin(file, line)
        try:
            if isinstance(record, ConversionError):
                raise record
            content = convert(record)
        except ConversionError as error:
            rejected = Rejected(index, source_index, origin, str(error.reason), error.detail)
            yield rejected, {} if isinstance(record, ConversionError) else record
            continue
        yield Row(index, source_index, origin, content), record
        taken += 1
        if taken == source.max_samples:
            return


def _open_source(source: Source, max_line_bytes: int) -> tuple[Detection, Iterator[Placed]]:
    """Settle the format from the first rows, and give back the stream with those rows still in it."""
    if source.format not in ("auto", *NEEDS):
        raise UsageError(
            f"datasets: format {source.format!r}",
            rule=f"a format is one of auto, {', '.join(NEEDS)}",
            remedy="correct `format`, or leave it out",
        )
    stream = _records(source, max_line_bytes)
    head: list[Placed] = []
    readable: list[Record] = []
    for placed in stream:
        head.append(placed)
        if not isinstance(placed[2], ConversionError):
            readable.append(placed[2])
        if len(readable) == DETECT_ROWS or len(head) == _DETECT_LINES:
            break
    if source.format != "auto" and head:
        return Detection(str(source.format), ("the recipe says so",)), chain(head, stream)
    if not readable:
        raise _nothing_readable(source.path, head)
    return detect_format(readable, place=source.path), chain(head, stream)


def _nothing_readable(path: str, head: list[Placed]) -> DataError:
    """The error for a source without a row, or without one that can be read."""
    seen = f"{path}: 0 rows"
    for file, line, fault in head[:1]:
        seen = f"{file}:{line}: {fault}, and none of the first {len(head)} rows can be read"
    return DataError(
        seen,
        rule="a source has rows, and its files are what their endings say: .jsonl has one object per line",
        remedy="check `path`; a JSON array belongs in a file named .json",
    )


def _records(source: Source, max_line_bytes: int) -> Iterator[Placed]:
    """Every record of the source's files, or of the hub, with its place."""
    # What exists here is read here: a folder `squad` is never taken for the hub's dataset `squad`.
    path = source.path
    if is_on_hub(path):
        from burnish.data.hub import read_hub  # importing `datasets` takes most of a second

        for line, record in read_hub(path, source.split):
            yield path, line, record
        return
    for file in find_files(path):
        name = name_of(file)
        for line, record in _read_file(file, max_line_bytes):
            yield name, line, record


def is_on_hub(path: str) -> bool:
    """Whether a path does not exist here, and has the form of a dataset's name on the hub."""
    looks = path.count("/") <= 1 and not path.startswith((".", "/", "~")) and not suffix_of(Path(path))
    return looks and not Path(path).exists()


def _read_file(file: Path, max_line_bytes: int) -> Iterator[Numbered]:
    """The reader that the file's ending asks for."""
    match suffix_of(file):
        case ".jsonl" | ".jsonl.gz":
            return read_jsonl(file, max_line_bytes=max_line_bytes)
        case ".json" | ".json.gz":
            return read_json(file, max_line_bytes=max_line_bytes)
        case ".csv" | ".tsv":
            return read_csv(file, max_line_bytes=max_line_bytes)
        case ".txt":
            return read_text(file, max_line_bytes=max_line_bytes)
        case _:
            from burnish.data.arrow import read_arrow  # importing pyarrow takes a quarter of a second

            return read_arrow(file)
