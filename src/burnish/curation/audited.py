"""Rows as the bias audit reads them: plain rows, chosen and rejected answers, scores, multiple choice.

{"prompt": ..., "chosen": ..., "rejected": ...}                      the chosen answer, and its rival
{"instruction": ..., "output": ..., "score": 4.5}                    an answer that somebody scored
{"question": ..., "choices": {"text": [...], "label": [...]}, "answerKey": "B"}      options, and the one taken
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from burnish.curation.findings import Audited
from burnish.curation.items import Input
from burnish.curation.prompts import to_prompt
from burnish.data.read import read_records
from burnish.data.reject import ConversionError, Record
from burnish.types import Origin, Rejected

SCORES = ("score", "rating", "reward", "overall_score", "weight")


def read_audited(inputs: Iterable[Input]) -> Iterator[Audited | Rejected]:
    """Every row with a prompt and an answer; the source of a row is the input that it came from."""
    index = 0
    for number, source in enumerate(inputs):
        # Any format at all: what the audit needs is told from the columns, row by row.
        given = Input(source.path, "messages", source.split, source.max_samples)
        _, pairs = read_records(given, source_index=number, first_index=index)
        for row, record in pairs:
            index += 1
            if isinstance(row, Rejected) and not record:
                yield row
                continue
            try:
                yield to_audited(record, row.origin, source=source.path)
            except ConversionError as error:
                yield Rejected(row.index, number, row.origin, str(error.reason), error.detail)


def to_audited(record: Record, origin: Origin, *, source: str = "") -> Audited:
    """One record; an answer that is missing is ''."""
    if options := _options(record):
        texts, taken = options
        return Audited(origin, str(record.get("question", "")), taken, source, offered=texts)
    rival = _answer(record["rejected"]) if "chosen" in record and "rejected" in record else None
    if rival is not None:
        record = _with_prompt(record)
    prompt = to_prompt(record, origin)
    answer = _answer(record["chosen"]) if rival is not None else prompt.reference
    score = next((record[name] for name in SCORES if _is_number(record.get(name))), None)
    return Audited(origin, prompt.text, answer, source, rival, score)


def _with_prompt(record: Record) -> Record:
    """A pair without a column for its prompt has it at the beginning of both conversations."""
    if isinstance(record["chosen"], list) and not {"prompt", "messages", "conversations"} & record.keys():
        return {**record, "messages": record["chosen"]}
    return record


def _answer(value: Any) -> str:
    """The text of an answer: a string, a message, or the last of some messages."""
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, dict):
        value = value.get("content", value.get("value"))
    return value if isinstance(value, str) else ""


def _options(record: Record) -> tuple[tuple[str, ...], str] | None:
    """Options by text and the letter of the one taken, in the layout of ARC and its like."""
    choices, key = record.get("choices"), record.get("answerKey", record.get("answer"))
    texts = choices.get("text") if isinstance(choices, dict) else choices
    labels = choices.get("label") if isinstance(choices, dict) else None
    if not (isinstance(texts, list) and len(texts) >= 2 and all(isinstance(text, str) for text in texts)):
        return None
    place = labels.index(key) if isinstance(labels, list) and key in labels else key
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(texts):
        return None
    return tuple(texts), chr(ord("A") + place)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
