"""Questions with a way to tell a right answer, from local files: burnish's own rows, and those of known benchmarks.

    {"prompt": "2 + 2?", "expected": "4", "metric": "numeric", "source": "sums"}
    {"messages": [{"role": "user", "content": "Hi"}], "expected": "hello", "metric": ["exact", "contains"]}
    {"prompt": "The sky is", "choices": ["blue", "loud"], "expected": 0}          multiple choice by likelihood
    {"prompt": "Add 1 and 2.", "tools": [...], "expected": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    IFEval   {"prompt", "instruction_id_list", "kwargs"}        GSM8K   {"question", "answer": "... #### 72"}
    BFCL     {"question": [[...]], "function": [...]} with `ground_truth`, there or in possible_answer/ beside it

Any other row is a demonstration in a training format: its last answer is what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.curation.items import Input
from burnish.data.files import find_files
from burnish.data.messages import read_messages
from burnish.data.read import raw_records
from burnish.data.reject import ConversionError
from burnish.errors import DataError
from burnish.evaluation.calls import Wanted, offered, read_wanted
from burnish.evaluation.ifeval import Instruction, read_instructions
from burnish.models.tokenizer import Prompt

METRICS = ("exact", "contains", "choice", "regex", "numeric", "json", "tool_call", "ifeval", "likelihood")
MARKS = {"metric", "expected", "choices", "instruction_id_list", "ground_truth"}
_FORMAT = re.compile(r"Answer format: ([\w/ ]+)\s*$")


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, and how its answer is judged; `right` is the number of the right choice."""

    place: str
    source: str
    prompt: Prompt
    metrics: tuple[str, ...]
    expected: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    right: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    wanted: tuple[Wanted, ...] | None = None
    json: Any = None
    instructions: tuple[Instruction, ...] = ()

    @property
    def text(self) -> str:
        """The prompt as one text, without system messages."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n\n".join(str(m.get("content", "")) for m in self.prompt if m["role"] != "system")


def is_question(record: Mapping[str, Any]) -> bool:
    """Whether a record says how its answer is judged; others are demonstrations."""
    if record.keys() & MARKS or {"question", "function"} <= record.keys():
        return True
    answer = record.get("answer")
    if isinstance(answer, str) and "question" in record:
        return "####" in answer
    return isinstance(answer, str) and _FORMAT.search(str(record.get("instruction", ""))) is not None


def read_questions(path: str, *, limit: int | None = None) -> list[Question] | None:
    """The questions of a file; None where its rows are demonstrations, DataError where a row is neither."""
    found: list[Question] = []
    truths: dict[Any, Any] | None = None
    for file, line, record in raw_records(Input(path)):
        place = f"{file}:{line}"
        if isinstance(record, ConversionError):
            raise _bad(place, f"{record.reason}: {record.detail}")
        if not found and not is_question(record):
            return None
        if "function" in record and "ground_truth" not in record:
            truths = _ground_truths(path) if truths is None else truths
            record = {**record, "ground_truth": truths.get(record.get("id"))}
        found.append(read_question(record, place))
        if len(found) == limit:
            break
    if not found:
        raise DataError(f"{path}: 0 rows", rule="an evaluation set has rows", remedy="check the path")
    return found


def _ground_truths(path: str) -> dict[Any, Any]:
    """The gold calls that the Berkeley leaderboard keeps in a folder beside the questions."""
    beside = [file.parent / "possible_answer" / file.name for file in find_files(path)]
    rows = (row for file in beside if Path(file).is_file() for *_, row in raw_records(Input(str(file))))
    return {row["id"]: row.get("ground_truth") for row in rows if isinstance(row, dict) and "id" in row}


def read_question(record: Mapping[str, Any], place: str) -> Question:
    """One question from a record of any known form."""
    source = next((str(record[key]) for key in ("source", "category", "subject") if record.get(key)), "all")
    if "instruction_id_list" in record:
        given = read_instructions(record, place)
        return Question(place, source, _prompt(record, place), ("ifeval",), instructions=given)
    if "function" in record and isinstance(record.get("question"), list):
        turns = record["question"][0] if record["question"] else None
        record = {"messages": turns, "tools": record["function"], "expected": record["ground_truth"]}
        return _judged(record, place, source, ("tool_call",))
    if "expected" not in record and isinstance(record.get("answer"), str | int):
        record = _benchmark({**record, "expected": record["answer"]})
    named = record.get("metric")
    metrics = tuple(named) if isinstance(named, list) else (named,) if named else _metrics(record)
    if unknown := [metric for metric in metrics if metric not in METRICS]:
        raise DataError(
            f"{place}: metric {unknown[0]!r}",
            rule=f"a metric is one of {', '.join(METRICS)}",
            remedy="correct `metric`, or leave it out: it follows from what is expected",
        )
    return _judged(record, place, source, metrics)


def _benchmark(record: dict[str, Any]) -> dict[str, Any]:
    """GSM8K's final answer as a number; ARC's `Answer format: a/b/c` as choices."""
    listed = _FORMAT.search(str(record.get("instruction", "")))
    if listed:
        names = [name.strip() for name in listed[1].split("/")]
        said = str(record.get("output", ""))
        choices = [said.replace(record["answer"], name) for name in names]
        return {"prompt": record["instruction"], "choices": choices, "expected": said}
    if "####" in str(record["expected"]) and "metric" not in record:
        return {**record, "prompt": record.get("question"), "metric": "numeric"}
    return record


def _metrics(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What follows from what is expected."""
    if record.get("choices"):
        return ("likelihood",)
    if record.get("tools") and isinstance(record.get("expected"), dict | list):
        return ("tool_call",)
    return ("json",) if isinstance(record.get("expected"), dict) else ("exact",)


def _judged(record: Mapping[str, Any], place: str, source: str, metrics: tuple[str, ...]) -> Question:
    expected = record.get("expected")
    choices = tuple(map(str, record.get("choices") or ()))
    texts = tuple(_texts(expected)) if not {"tool_call", "json"} & {*metrics} else ()
    right = _right(expected, choices, place) if {"choice", "likelihood"} & {*metrics} else None
    if {"exact", "contains", "regex", "numeric"} & {*metrics} and not texts:
        raise _bad(place, f"metric {', '.join(metrics)} and expected {expected!r}")
    return Question(
        place,
        source,
        _prompt(record, place),
        metrics,
        expected=texts,
        choices=choices,
        right=right,
        tools=tuple(offered(record.get("tools"), place)),
        wanted=read_wanted(expected, place) if "tool_call" in metrics and expected is not None else None,
        json=expected,
    )


def _texts(expected: Any) -> Iterator[str]:
    for one in expected if isinstance(expected, list) else [expected]:
        if isinstance(one, str | int | float) and not isinstance(one, bool):
            yield str(one)


def _right(expected: Any, choices: tuple[str, ...], place: str) -> int:
    """The number of the right choice: given as such, as a letter, or as its text."""
    if isinstance(expected, int) and not isinstance(expected, bool) and 0 <= expected < len(choices):
        return expected
    if isinstance(expected, str) and expected in choices:
        return choices.index(expected)
    letter = ord(expected) - ord("A") if isinstance(expected, str) and len(expected) == 1 else -1
    if 0 <= letter < len(choices):
        return letter
    raise _bad(place, f"choices {list(choices)!r} and expected {expected!r}")


def _prompt(record: Mapping[str, Any], place: str) -> Prompt:
    if record.get("messages") is not None:
        try:
            messages = read_messages(record["messages"])
        except ConversionError as error:
            raise _bad(place, f"{error.reason}: {error.detail}") from None
        if messages and messages[-1]["role"] != "assistant":
            return messages
        raise _bad(place, "messages that end with the assistant's turn, or none")
    for key in ("prompt", "question", "instruction"):
        if isinstance(record.get(key), str) and record[key].strip():
            return str(record[key])
    raise _bad(place, f"keys {', '.join(list(record)[:8])}")


def _bad(place: str, seen: str) -> DataError:
    return DataError(
        f"{place}: {seen}",
        rule="a question has `prompt` or `messages`, and `expected` in the form its `metric` takes (docs/eval.md)",
        remedy="correct the row, or leave it out",
    )
