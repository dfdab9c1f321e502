"""Kept rows as Parquet: one pass to learn the columns, one to write them, a batch in memory at a time.

Arrow gives a column one type. Where rows differ in a way that no type holds (a tool argument that is a number here and
a text there), the column is written as JSON text, which burnish reads back as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 1_000


def write_parquet(rows: Path, out: Path) -> Path:
    """Write the JSON Lines in `rows` as a Parquet file."""
    types = _types(rows)
    schema = pa.schema([pa.field(name, type) for name, type in types.items()])
    as_text = {name for name, type in types.items() if type == pa.string()}
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            columns = {name: [_cell(row.get(name), name in as_text) for row in batch] for name in types}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))
    return out


def _types(rows: Path) -> dict[str, Any]:
    """A type for each column, over all rows; text where Arrow finds none."""
    types: dict[str, Any] = {}
    for batch in _batches(rows):
        for name in dict.fromkeys(name for row in batch for name in row):
            types[name] = _joined(types.get(name, pa.null()), _type_of([row.get(name) for row in batch]))
    # A column of nulls only, and a struct without a key, are no Parquet columns.
    return {name: pa.string() if _is_void(type) else type for name, type in types.items()}


def _type_of(values: list[Any]) -> Any:
    """What Arrow infers for the values; text where lists or objects would lose something, or do not fit."""
    if any(isinstance(value, list | dict) and _is_open(value) for value in values):
        return pa.string()
    try:
        return pa.infer_type(values)
    except (pa.ArrowException, OverflowError, ValueError):
        return pa.string()


def _is_open(value: Any, depth: int = 0) -> bool:
    """Whether an object of free keys (tool arguments) or a null stands within: Arrow would add or drop keys."""
    if isinstance(value, dict):
        return depth > 1 or any(_is_open(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return any(_is_open(item, depth + 1) for item in value)
    return value is None


def _joined(first: Any, second: Any) -> Any:
    if pa.types.is_null(first) or first == second:
        return second
    if pa.types.is_null(second):
        return first
    try:
        fields = [pa.schema([pa.field("c", type)]) for type in (first, second)]
        return pa.unify_schemas(fields, promote_options="permissive").field("c").type
    except pa.ArrowException:
        return pa.string()


def _is_void(type: Any) -> bool:
    if pa.types.is_struct(type):
        return type.num_fields == 0 or any(_is_void(type.field(k).type) for k in range(type.num_fields))
    return pa.types.is_null(type) or (pa.types.is_list(type) and _is_void(type.value_type))


def _cell(value: Any, as_text: bool) -> Any:
    if as_text and value is not None and not isinstance(value, str):
        return orjson.dumps(value).decode()
    return value


def _batches(rows: Path) -> Iterator[list[dict[str, Any]]]:
    with rows.open("rb") as stream:
        lines = (orjson.loads(line) for line in stream)
        while batch := list(islice(lines, BATCH_ROWS)):
            yield batch
