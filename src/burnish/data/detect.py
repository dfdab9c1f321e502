"""Which format records have, told from their columns, with the reasons in plain words.

    {"conversations": [{"from": "human", "value": "Hi"}, ...]}
    -> Detection("sharegpt", ("column 'conversations' holds lists of {from, value}: ShareGPT",))

Detection would rather ask than guess: records that fit two formats, and records that fit one but
carry a column which says that they are something else (preference pairs, multiple choice), are an
error whose remedy is to write `format:` down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from burnish.data.reject import ConversionError, Record, show
from burnish.data.strict import parse_json
from burnish.errors import DataError

NEEDS = {
    "messages": "`messages`: a list of {role, content}",
    "sharegpt": "`conversations`: a list of {from, value}",
    "alpaca": "`instruction` (or `question`, `prompt`) and `output` (or `response`, `answer`)",
    "prompt-completion": "`prompt` and `completion`",
    "text": "`text`",
}
TURN_COLUMNS = ("messages", "conversations")
USER_COLUMNS = ("instruction", "question", "prompt")
CONTEXT_COLUMNS = ("input", "context")
REPLY_COLUMNS = ("output", "response", "answer")

_TURN_KEYS = {
    "role": ("messages", "{role, content}: OpenAI messages"),
    "from": ("sharegpt", "{from, value}: ShareGPT"),
}
_FURTHER_COLUMNS = {
    "messages": {"tools"},
    "sharegpt": {"tools", "system"},
    "alpaca": {"system", "history"},
    "prompt-completion": {"prompt", "completion", "tools"},
    "text": {"text"},
}
_TEXT_HAS_COMPANY = ("label", "code", "answer", "response", "output", "completion")


@dataclass(frozen=True, slots=True)
class Detection:
    """The format that the records have, and why we think so."""

    format: str
    reasons: tuple[str, ...]


def claims(record: Record) -> dict[str, str]:
    """Every format whose columns the record has, with the reason."""
    found: dict[str, str] = {}
    for column in TURN_COLUMNS:
        kind = _TURN_KEYS.get(_turn_key(record.get(column)))
        if kind:
            found.setdefault(kind[0], f"column {column!r} holds lists of {kind[1]}")
    if "prompt" in record and "completion" in record:
        found["prompt-completion"] = "columns 'prompt' and 'completion': a text and its continuation"
    # GSM8K's question and answer, Dolly's instruction and response: one instruction, one reply.
    user, reply = first_column(record, USER_COLUMNS), first_column(record, REPLY_COLUMNS)
    if user and reply:
        found["alpaca"] = f"columns {user!r} and {reply!r}: an instruction and its reply (Alpaca)"
    # `text` beside a structured format is the same row rendered (tatsu-lab/alpaca has all four columns).
    if "text" in record and not found:
        found["text"] = "column 'text': plain documents"
    return found


def detect_format(records: Sequence[Record], *, place: str = "the records") -> Detection:
    """The one format of the records; DataError if there is none, or more than one."""
    votes: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for record in records:
        found = claims(record)
        if len(found) > 1:
            raise _ambiguous(place, f"columns {_names(records)} fit {' and '.join(found)}", next(iter(found)))
        votes.update(found.keys())
        reasons.update(found)
    if not votes:
        raise _unknown(place, records)
    format, count = votes.most_common(1)[0]
    # Three odd rows in a hundred are rejected where they stand; half and half has no format.
    if count * 2 <= votes.total():
        seen = ", ".join(f"{number} rows of {name}" for name, number in votes.most_common())
        raise _ambiguous(place, f"of the first {len(records)} rows, {seen}", format)
    _require_no_doubt(place, records, format)
    return Detection(format, (reasons[format], *_unread(records, format)))


def first_column(record: Record, names: Sequence[str]) -> str | None:
    """The first of the names that is a column of the record."""
    for name in names:  # a generator here takes a tenth of the time that reading Alpaca does
        if name in record:
            return name
    return None


def _turn_key(turns: Any) -> str:
    """`role` or `from`, whichever the turns are keyed by; '' if these are no turns."""
    if isinstance(turns, str) and turns.lstrip().startswith("["):
        try:
            turns = parse_json(turns.encode())
        except ConversionError:
            return ""
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        return next((key for key in _TURN_KEYS if key in turns[0]), "")
    return ""


def _require_no_doubt(place: str, records: Sequence[Record], format: str) -> None:
    """Refuse to guess where a column says that the rows are not plain demonstrations."""
    columns = {name for record in records for name in record}
    # Each of these fits a format by its columns and would be trained on wrongly without a word.
    doubt = ""
    if {"chosen", "rejected"} <= columns:
        doubt = "columns 'chosen' and 'rejected': preference pairs, not demonstrations"
    elif format != "text" and any(isinstance(record.get("label"), bool) for record in records):
        doubt = "column 'label' is true or false: replies marked good and bad, not all to be imitated"
    elif format == "alpaca" and columns & {"options", "choices"}:
        doubt = "columns with answer options, which an instruction and its reply do not show the model"
    elif format == "text" and (company := first_column(records[0], _TEXT_HAS_COMPANY)):
        doubt = f"column {company!r} beside 'text': labelled or paired data, not plain documents"
    if doubt:
        raise DataError(
            f"{place}: {doubt}",
            rule="detection does not guess what the rows are for",
            remedy=f"to train on them as they are, say so: `format: {format}`; else convert them first",
        )


def _unread(records: Sequence[Record], format: str) -> tuple[str, ...]:
    """A reason that names the columns which this format does not look at."""
    columns = dict.fromkeys(name for record in records for name in record)
    read = set(_FURTHER_COLUMNS[format])
    if format in ("messages", "sharegpt"):
        read.update(TURN_COLUMNS)
    if format == "alpaca":
        first = [first_column(columns, names) for names in (USER_COLUMNS, CONTEXT_COLUMNS, REPLY_COLUMNS)]
        read.update(name for name in first if name)
    ignored = [show(name) for name in columns if name not in read]
    return (f"columns not read: {', '.join(ignored[:12])}",) if ignored else ()


def _names(records: Sequence[Record]) -> str:
    """The columns seen, in the order seen, at most twelve."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    return ", ".join(show(name) for name in columns[:12]) + more


def _ambiguous(place: str, seen: str, first: str) -> DataError:
    return DataError(
        f"{place}: {seen}",
        rule="one source has one format",
        remedy=f"write it down (`format: {first}`), or split the file into one source per format",
    )


def _unknown(place: str, records: Sequence[Record]) -> DataError:
    """The error for columns that no format has: all needs, and the format that comes nearest."""
    columns = {name for record in records for name in record}
    near = {
        "messages": columns & {"messages", "tools"},
        "sharegpt": columns & {"conversations"},
        "alpaca": columns & {*USER_COLUMNS, *REPLY_COLUMNS},
        "prompt-completion": columns & {"completion"},
    }
    format = max(near, key=lambda name: len(near[name]))
    nearest = f"; {show(sorted(near[format])[0])} comes nearest to {format}" if near[format] else ""
    return DataError(
        f"{place}: columns {_names(records)}{nearest}",
        rule="a format needs" + "".join(f"\n    {name + ':':19}{needs}" for name, needs in NEEDS.items()),
        remedy="rename or convert the columns to one of these; `format: ...` forces a format",
    )
