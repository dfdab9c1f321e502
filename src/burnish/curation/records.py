"""A row's content as a record that reads back as the same content, other columns of the source along.

{"instruction": "Say a.", "input": "", "output": "a", "category": "letters"}
-> {"messages": [{"role": "user", ...}, {"role": "assistant", ...}], "category": "letters"}
"""

from __future__ import annotations

from typing import Any

from burnish.data.detect import CONTEXT_COLUMNS, REPLY_COLUMNS, TURN_COLUMNS, USER_COLUMNS, first_column
from burnish.data.reject import Record
from burnish.types import Completion, Content, Conversation, Document

READ = {
    "messages": {"tools", "documents", "chat_template_kwargs"},
    "sharegpt": {"tools", "system", "documents", "chat_template_kwargs"},
    "alpaca": {"system", "history"},
    "prompt-completion": {"prompt", "completion", "tools", "documents", "chat_template_kwargs"},
    "text": {"text"},
}
"""The columns that a format's content is made of, beside those that have several names."""


def to_record(content: Content) -> Record:
    """The content alone: messages, prompt and completion, or text."""
    match content:
        case Conversation():
            columns: dict[str, Any] = {
                "messages": content.messages,
                "tools": content.tools,
                "documents": content.documents,
                "chat_template_kwargs": content.variables,
            }
            return {name: value for name, value in columns.items() if value is not None}
        case Completion():
            return {"prompt": content.prompt, "completion": content.completion}
        case Document():
            return {"text": content.text}


def with_columns(content: Content, record: Record, format: str) -> tuple[Record, list[str]]:
    """The content with the columns that burnish does not read, and those that give way to a column of the content."""
    read = columns_read(record, format)
    made = to_record(content)
    beside = {name: value for name, value in record.items() if name not in read}
    taken = [name for name in beside if name in made]
    return {**made, **{name: value for name, value in beside.items() if name not in made}}, taken


def columns_read(record: Record, format: str) -> set[str]:
    """The columns that the content of a record of that format is made of."""
    columns = set(READ[format])
    if format in ("messages", "sharegpt"):
        order = TURN_COLUMNS if format == "messages" else TURN_COLUMNS[::-1]
        columns.add(first_column(record, order) or "")
    if format == "alpaca":
        named = (USER_COLUMNS, CONTEXT_COLUMNS, REPLY_COLUMNS)
        columns.update(first_column(record, names) or "" for names in named)
    return columns
