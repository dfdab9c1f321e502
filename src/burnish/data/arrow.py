"""Rows out of Parquet and Arrow files, and out of a dataset on the hub; they are counted from 1.

Arrow gives every struct of a column the same keys and fills the missing ones with null:

    source   {"arguments": {"city": "Oslo"}},  {"arguments": {"day": 3}}
    Arrow    {"city": "Oslo", "day": null},    {"city": null, "day": 3}
    here     {"city": "Oslo"},                 {"day": 3}

A key whose value is null is therefore taken away again. A null that the source really had is lost
with them: Arrow cannot tell the two apart (JSON Lines can).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from burnish.data.files import name_of, unreadable
from burnish.data.reject import ConversionError, Numbered, Reason, show
from burnish.errors import DataError

_BATCH_ROWS = 256


def read_arrow(path: Path) -> Iterator[Numbered]:
    """Yield the rows of a `.parquet` or `.arrow` file, a batch of columns at a time."""
    number = 0
    try:
        for batch in _batches(path):
            for record in _records(batch):
                number += 1
                yield number, record
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(path, error, number + 1) from None


def without_nulls(value: Any) -> Any:
    """The value without the keys that hold null, at every depth; list items keep their places."""
    if type(value) is dict:
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if type(value) is list:
        return [without_nulls(item) for item in value]
    return value


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Record batches of bounded size, after a look at the column names."""
    if path.name.lower().endswith(".parquet"):
        with pq.ParquetFile(path) as table:
            _require_unique(path, table.schema_arrow.names)
            yield from table.iter_batches(batch_size=_BATCH_ROWS)
        return
    with pa.memory_map(name_of(path)) as source:
        reader = _ipc_reader(source)
        _require_unique(path, reader.schema.names)
        for batch in reader:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield batch.slice(start, _BATCH_ROWS)


def _ipc_reader(source: pa.NativeFile) -> Any:
    """A reader of Arrow's stream format (what `datasets` writes) or of its file format."""
    # The file format begins and ends with ARROW1; the stream format begins with a schema message.
    if source.read(6) == b"ARROW1":
        table = pa.ipc.open_file(source)
        return pa.RecordBatchReader.from_batches(
            table.schema, (table.get_batch(k) for k in range(table.num_record_batches))
        )
    source.seek(0)
    return pa.ipc.open_stream(source)


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | ConversionError]:
    """The batch's rows as Python values; if one of them has none, each row is asked alone."""
    # One bad cell makes the whole batch fail, before its first row is out.
    try:
        yield from map(without_nulls, batch.to_pylist(maps_as_pydicts="strict"))
    except (ValueError, KeyError, OverflowError):
        for k in range(batch.num_rows):
            yield _record(batch.slice(k, 1))


def _record(row: pa.RecordBatch) -> dict[str, Any] | ConversionError:
    """One row as Python values, or why it has none: bytes that are no text, a map key given twice."""
    try:
        fields: dict[str, Any] = without_nulls(row.to_pylist(maps_as_pydicts="strict")[0])
    except UnicodeDecodeError as error:
        return ConversionError(Reason.INVALID_UTF8, str(error))
    except (ValueError, KeyError, OverflowError) as error:
        reason = Reason.DUPLICATE_KEY if "duplicate" in str(error) else Reason.NON_STRING
        return ConversionError(reason, show(str(error)))
    return fields


def _require_unique(path: Path, names: list[str]) -> None:
    """Refuse a table with two columns of one name: a dict would keep one of them."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{name_of(path)}: column {show(twice[0])} stands twice",
            rule="a table names each column once",
            remedy="rename or drop one of the two columns",
        )
