"""IFEval's verdicts on a response: each instruction, strictly and loosely.

    {"key": 1001, "prompt": "...", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}

Loosely, a response may also be read without its first line, its last, both, and without asterisks: whoever opens
with "Sure, here is the list:" is not failed for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.errors import DataError
from burnish.evaluation.instructions import follows


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a prompt: its id in IFEval, and its arguments."""

    id: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one response, whether it follows each instruction in turn."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def read_instructions(record: Mapping[str, Any], place: str) -> tuple[Instruction, ...]:
    """The instructions of a row in IFEval's form; DataError where ids and arguments do not pair up."""
    ids, arguments = record.get("instruction_id_list"), record.get("kwargs")
    if not isinstance(ids, list) or not isinstance(arguments, list) or len(ids) != len(arguments):
        raise DataError(
            f"{place}: instruction_id_list {ids!r}, kwargs {arguments!r}",
            rule="an IFEval row has a list of instruction ids and as many objects of arguments",
            remedy="correct the row: every id has its arguments in `kwargs`, {} where it needs none",
        )
    return tuple(Instruction(str(id), given or {}) for id, given in zip(ids, arguments, strict=True))


def verdict(response: str, instructions: Sequence[Instruction]) -> Verdict:
    """Check a response strictly, as it is, and loosely, in any of its eight readings."""
    readings = loose_readings(response)
    strict = tuple(follows(one.id, response, one.arguments) for one in instructions)
    loose = tuple(
        ok or any(follows(one.id, reading, one.arguments) for reading in readings)
        for ok, one in zip(strict, instructions, strict=True)
    )
    return Verdict(strict, loose)


def loose_readings(response: str) -> list[str]:
    """The response, and without its first line, last line, both; each with and without asterisks."""
    lines = response.split("\n")
    readings = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*readings, *(reading.replace("*", "") for reading in readings)]
