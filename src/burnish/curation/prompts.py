"""Prompts without answers, from any file of rows; what answers the rows have are references, not context.

{"instruction": "Add 2 and 2.", "output": "4"}             -> Prompt([user "Add 2 and 2."], reference "4")
{"messages": [user, assistant, user, assistant]}           -> the first three, reference the last
{"instruction": "Sort.", "instances": [{"input": "3 1", "output": "1 3"}]}     a seed task of Self-Instruct
a line of prompts.txt                                      -> one user message
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.curation.items import Input
from burnish.data.detect import CONTEXT_COLUMNS, REPLY_COLUMNS, USER_COLUMNS, first_column
from burnish.data.files import find_files, name_of, read_lines
from burnish.data.messages import read_messages, read_sharegpt
from burnish.data.read import is_on_hub, read_records
from burnish.data.reject import ConversionError, Reason, Record, show
from burnish.types import Message, Origin, Rejected

LICENCE_COLUMNS = ("license", "licence")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a teacher is asked, where it was read, the answer that the row has, and the row's own licence."""

    messages: tuple[Message, ...]
    origin: Origin
    reference: str = ""
    licence: str = ""

    @property
    def text(self) -> str:
        """The last thing said, by which prompts are compared."""
        return str(self.messages[-1]["content"])


def read_prompts(path: str, *, split: str | None = "train") -> Iterator[Prompt | Rejected]:
    """Every prompt of a file, folder, glob or hub data set, in order; a row without one comes as Rejected."""
    if not is_on_hub(path) and all(file.suffix == ".txt" for file in find_files(path)):
        yield from _from_lines(find_files(path))
        return
    # The format is ours to find, row by row: a prompt alone is no row that could be trained on.
    _, pairs = read_records(Input(path, format="messages", split=split), source_index=0, first_index=0)
    for row, record in pairs:
        if isinstance(row, Rejected) and not record:
            yield row
            continue
        try:
            yield to_prompt(record, row.origin)
        except ConversionError as error:
            yield Rejected(row.index, 0, row.origin, str(error.reason), error.detail)


def to_prompt(record: Record, origin: Origin) -> Prompt:
    """The prompt of one record; ConversionError where it has none."""
    messages, reference = _messages(record)
    if not messages or not str(messages[-1]["content"]).strip():
        raise ConversionError(Reason.EMPTY_CONVERSATION, "nothing is asked")
    column = first_column(record, LICENCE_COLUMNS)
    return Prompt(tuple(messages), origin, reference, str(record[column]) if column else "")


def _messages(record: Record) -> tuple[list[Message], str]:
    if turns := record.get("messages"):
        return _without_reply(read_messages(turns))
    if turns := record.get("conversations"):
        return _without_reply(read_sharegpt(turns, column="conversations"))
    if isinstance(record.get("prompt"), list):
        return _without_reply(read_messages(record["prompt"], column="prompt"))
    asked = first_column(record, (*USER_COLUMNS, "text"))
    if asked is None or not isinstance(record[asked], str):
        raise ConversionError(Reason.MISSING_FIELD, f"no prompt in columns {show(list(record))}")
    record = {**record, **_instance(record)}
    context = first_column(record, CONTEXT_COLUMNS)
    given = str(record[context] or "") if context else ""
    reply = first_column(record, (*REPLY_COLUMNS, "completion"))
    reference = record[reply] if reply else ""
    system = record.get("system")
    said: list[Message] = (
        [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    )
    said.append({"role": "user", "content": f"{record[asked]}\n\n{given}" if given else record[asked]})
    return said, reference if isinstance(reference, str) else ""


def _instance(record: Record) -> dict[str, Any]:
    """Input and output of a seed task's first instance."""
    instances = record.get("instances")
    first = instances[0] if isinstance(instances, list) and instances else None
    return {key: first[key] for key in ("input", "output") if key in first} if isinstance(first, dict) else {}


def _without_reply(messages: list[Message]) -> tuple[list[Message], str]:
    """The conversation up to what the last reply answers."""
    reference = ""
    while messages and messages[-1]["role"] == "assistant":
        reference = str(messages[-1]["content"])
        messages = messages[:-1]
    return messages, reference


def _from_lines(files: list[Path]) -> Iterator[Prompt | Rejected]:
    index = 0
    for file in files:
        for number, line in read_lines(file):
            origin = Origin(name_of(file), number)
            index += 1
            try:
                if isinstance(line, ConversionError):
                    raise line
                text = line.decode().rstrip("\r\n")
            except (ConversionError, UnicodeDecodeError) as error:
                yield Rejected(index - 1, 0, origin, str(Reason.INVALID_UTF8), str(error))
                continue
            if text.strip():
                yield Prompt(({"role": "user", "content": text},), origin)
