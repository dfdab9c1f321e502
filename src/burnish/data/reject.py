"""Why a row cannot be used: a few countable reasons, and the detail that shows the value seen."""

from __future__ import annotations

import reprlib
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """The words that reports count rejected rows by."""

    INVALID_UTF8 = "invalid UTF-8"
    BROKEN_JSON = "broken JSON"
    BROKEN_CSV = "broken CSV"
    DUPLICATE_KEY = "duplicate key"
    TOO_LONG = "line too long"
    TOO_DEEP = "nested too deeply"
    NOT_OBJECT = "not an object"
    WRONG_FORMAT = "wrong format"
    MISSING_FIELD = "missing field"
    NULL_CONTENT = "null content"
    NON_STRING = "non-string content"
    IMAGE = "image content"
    UNKNOWN_PART = "unknown content part"
    UNKNOWN_ROLE = "unknown role"
    EMPTY_CONVERSATION = "empty conversation"
    NO_ASSISTANT = "no assistant turn"
    EMPTY_REPLY = "empty reply"
    EMPTY_TEXT = "empty text"
    BAD_TOOL_CALL = "bad tool call"
    BAD_TOOLS = "bad tool list"
    BAD_WEIGHT = "bad weight"
    BAD_TRAIN_FLAG = "bad train flag"


class ConversionError(Exception):
    """One record that cannot become a row; readers pass it on as a value, the row's place is theirs."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def within(self, place: str) -> ConversionError:
        """The same error with its place in the record before the detail: `messages[2]: role 'bot'`."""
        return ConversionError(self.reason, f"{place}: {self.detail}")


Record = dict[str, Any]
"""One JSON object, CSV row or Parquet row, before anything is known of its format."""

Numbered = tuple[int, Record | ConversionError]
"""A line (or row) number, counted from 1, and what stands there."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 72


def show(value: object) -> str:
    """The value as an error prints it: one line, at most 72 characters, control characters escaped."""
    return _SHORT.repr(value)
