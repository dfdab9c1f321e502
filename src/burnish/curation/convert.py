"""Any row as messages, and what the target cannot hold of it.

Columns that burnish does not read go along. Rows of plain text stay `text`, or `prompt` and `completion`: made into
messages they would be trained on in a template that they never had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.curation.flow import Verdict
from burnish.curation.items import Item
from burnish.curation.records import with_columns
from burnish.data.detect import TURN_COLUMNS
from burnish.data.reject import Record, show

_TURN_KEYS = {"role", "content", "from", "value", "tool_calls"}


@dataclass(frozen=True)
class Conversion:
    """The judge that keeps every row, as messages, and says what was left behind; `parquet` holds no nulls."""

    parquet: bool = False

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """Every row stays; the reason, where there is one, is what could not be held."""
        return [self._verdict(item) for item in items]

    def _verdict(self, item: Item) -> Verdict:
        record, taken = with_columns(item.row.content, item.record, item.format)
        lost = [
            *_lost_in_turns(item),
            *(f"column {show(name)}: the target has one of that name" for name in taken),
        ]
        if self.parquet:
            lost += [f"null or empty object within {name}" for name in _with_nulls(record)]
        if lost:
            return Verdict(True, "not held by the target", "; ".join(lost), record)
        return Verdict(True, record=record)


def _lost_in_turns(item: Item) -> Iterator[str]:
    """Keys of a turn that burnish leaves out: lists and objects under names it does not know."""
    for column in (*TURN_COLUMNS, "prompt", "completion"):
        turns = item.record.get(column)
        for k, turn in enumerate(turns if isinstance(turns, list) else []):
            for key, value in turn.items() if isinstance(turn, dict) else ():
                if isinstance(value, list | dict) and key not in _TURN_KEYS:
                    yield f"{column}[{k}].{key}"


def _with_nulls(record: Record) -> list[str]:
    """Columns of free form in which Parquet would lose a null, or an empty list or object.

    Turns and tools are none of these: where they hold what Arrow cannot, they are written as JSON text.
    """
    free = [name for name in record if name not in ("messages", "tools", "prompt", "completion", "text")]
    return [name for name in free if _is_lossy(record[name])]


def _is_lossy(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(map(_is_lossy, value.values()))
    if isinstance(value, list):
        return any(map(_is_lossy, value))
    return value is None
