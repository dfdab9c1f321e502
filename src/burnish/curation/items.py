"""Rows of files with the records that they were read from: what all verbs of `burnish data` go through.

for item in read_items([Input("raw.jsonl"), Input("more.parquet")]):      Item(row, record, "alpaca") or Rejected(...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

from burnish.data.read import inspect_source, read_records
from burnish.data.reject import Record
from burnish.data.split import content_key
from burnish.errors import DataError, UsageError
from burnish.types import Rejected, Row

CHUNK_ROWS = 500
T = TypeVar("T")
Progress = Callable[[int, int | None], None]
"""Called with the rows done, and the rows there are where that is known."""


@dataclass(frozen=True)
class Input:
    """One source of rows, as `burnish.data.read` asks for it."""

    path: str
    format: str = "auto"
    split: str | None = "train"
    max_samples: int | None = None


@dataclass(frozen=True)
class Item:
    """A row, the record it was read from, and the format of its source."""

    row: Row
    record: Record
    format: str

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits, equal for equal content wherever it stands: side files are keyed by it."""
        return content_key(self.row).hex()


def read_items(inputs: Iterable[Input]) -> Iterator[Item | Rejected]:
    """Every row of every input in order, numbered through; rows that cannot be read come as Rejected."""
    index = 0
    for number, source in enumerate(inputs):
        detection, pairs = read_records(source, source_index=number, first_index=index)
        for row, record in pairs:
            index += 1
            yield row if isinstance(row, Rejected) else Item(row, record, detection.format)


def chunks(values: Iterable[T], size: int = CHUNK_ROWS) -> Iterator[list[T]]:
    """The values in lists of `size`, the last one shorter."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def formats_of(inputs: Iterable[Input]) -> set[str]:
    """The formats of the inputs, from their first rows; documents and conversations together are refused."""
    found = {source.path: inspect_source(source).format for source in inputs}
    formats = set(found.values())
    if len(formats) > 1 and formats & {"text", "prompt-completion"}:
        raise DataError(
            ", ".join(f"{path}: {format}" for path, format in found.items()),
            rule="one file has one format; plain text and conversations have none in common",
            remedy="write one file for each, and name both under `datasets`",
        )
    return formats


def require_other_file(out: Path, inputs: Iterable[Input]) -> None:
    """Refuse to write over what is read."""
    for source in inputs:
        place = Path(source.path)
        if (
            out.exists()
            and place.exists()
            and (out.samefile(place) or place.resolve() in out.resolve().parents)
        ):
            raise UsageError(
                f"{out}: is, or lies within, the input {source.path}",
                rule="the output is another file than the input, so that nothing is lost",
                remedy="name another file with --out",
            )
