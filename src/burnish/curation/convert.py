"""Any row as messages, and what the target cannot hold of it.

    {"instruction": "Say a.", "input": "", "output": "a", "category": "letters"}
    -> {"messages": [{"role": "user", ...}, {"role": "assistant", ...}], "category": "letters"}

Columns that burnish does not read go along. Rows of plain text stay `text`, or `prompt` and `completion`: made into
messages they would be trained on in a template that they never had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.curation.flow import Item, Verdict, to_record
from burnish.data.detect import CONTEXT_COLUMNS, REPLY_COLUMNS, TURN_COLUMNS, USER_COLUMNS, first_column
from burnish.data.reject import Record, show

READ = {
    "messages": {"tools", "documents", "chat_template_kwargs"},
    "sharegpt": {"tools", "system", "documents", "chat_template_kwargs"},
    "alpaca": {"system", "history"},
    "prompt-completion": {"prompt", "completion", "tools", "documents", "chat_template_kwargs"},
    "text": {"text"},
}
"""The columns that a format's content is made of, beside those that have several names."""

_TURN_KEYS = {"role", "content", "from", "value", "tool_calls"}


@dataclass(frozen=True)
class Conversion:
    """The judge that keeps every row, as messages, and says what was left behind; `parquet` holds no nulls."""

    parquet: bool = False

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """Every row stays; the reason, where there is one, is what could not be held."""
        return [self._verdict(item) for item in items]

    def _verdict(self, item: Item) -> Verdict:
        content = to_record(item.row.content)
        beside = {name: value for name, value in item.record.items() if name not in _columns(item)}
        taken = [name for name in beside if name in content]
        lost = [
            *_lost_in_turns(item),
            *(f"column {show(name)}: the name is a column of the target" for name in taken),
        ]
        record = {**content, **{name: value for name, value in beside.items() if name not in content}}
        if self.parquet:
            lost += [f"null or empty object within {name}" for name in _with_nulls(record)]
        if lost:
            return Verdict(True, "not held by the target", "; ".join(lost), record)
        return Verdict(True, record=record)


def _columns(item: Item) -> set[str]:
    """The columns that the row's content was made of."""
    columns = set(READ[item.format])
    if item.format in ("messages", "sharegpt"):
        order = TURN_COLUMNS if item.format == "messages" else TURN_COLUMNS[::-1]
        columns.add(first_column(item.record, order) or "")
    if item.format == "alpaca":
        named = (USER_COLUMNS, CONTEXT_COLUMNS, REPLY_COLUMNS)
        columns.update(first_column(item.record, names) or "" for names in named)
    return columns


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
