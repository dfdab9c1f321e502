"""Models' answers to the same prompts, from the files in which benchmarks keep them, paired for a vote.

AlpacaEval outputs       {"instruction": "Why?", "output": "Because.", "generator": "alpaca-7b"}
MT-Bench answers         {"question_id": 81, "model_id": "x", "choices": [{"turns": ["first", "second"]}]}
MT-Bench questions       {"question_id": 81, "turns": ["first question", "second question"]}      --questions
AlpacaEval annotations   {"instruction": .., "output_1": .., "output_2": .., "generator_1": .., "preference": 1.93}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from burnish.data.files import name_of, open_bytes
from burnish.errors import DataError

Turns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt (one or more turns) with the answers of two models, turn by turn."""

    asked: Turns
    models: tuple[str, str]
    answers: tuple[Turns, Turns]

    @property
    def id(self) -> str:
        """The pair's address: the same prompt, models and answers have the same in every file."""
        written = orjson.dumps([self.asked, self.models, self.answers])
        return blake2b(written, digest_size=8).hexdigest()


def read_outputs(path: Path, *, questions: Path | None = None) -> dict[str, dict[Turns, Turns]]:
    """By model, each prompt's answers; a file may hold several models. JSON, JSON Lines, gzipped or not."""
    turns_of = {} if questions is None else _questions(questions)
    found: dict[str, dict[Turns, Turns]] = {}
    for place, record in read_records(path):
        model, asked, answered = _answer(place, record, turns_of, default=path.name.split(".")[0])
        found.setdefault(model, {})[asked] = answered
    return found


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list or of JSON Lines, each with its place in the file."""
    with open_bytes(path) as file:
        raw = file.read()
    listed = raw.lstrip()[:1] == b"["
    try:
        records = _loads(raw) if listed else [_loads(line) for line in raw.split(b"\n") if line.strip()]
    except ValueError as error:
        raise _bad(name_of(path), f"broken JSON: {error}") from error
    for number, record in enumerate(records, 1):
        place = f"{name_of(path)}:{number}"
        if not isinstance(record, dict):
            raise _bad(place, f"a {type(record).__name__}, not an object")
        yield place, record


def _loads(raw: bytes) -> Any:
    """JSON, and what Python writes of numbers that are none: NaN is no JSON, and stands in many annotations."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if b"NaN" not in raw:
            raise
        return json.loads(raw)


def _questions(path: Path) -> dict[Any, Turns]:
    found: dict[Any, Turns] = {}
    for place, record in read_records(path):
        if "question_id" not in record or not _are_texts(record.get("turns")):
            raise _bad(place, "no question_id with turns")
        found[record["question_id"]] = tuple(record["turns"])
    return found


def _answer(
    place: str, record: dict[str, Any], questions: dict[Any, Turns], *, default: str
) -> tuple[str, Turns, Turns]:
    model = record.get("generator") or record.get("model_id") or record.get("model") or default
    if "question_id" in record:
        asked = questions.get(record["question_id"])
        if asked is None:
            raise DataError(
                f"{place}: question {record['question_id']!r}, whose text is not known",
                rule="MT-Bench answers name questions by number, and the questions stand in a file of their own",
                remedy="add --questions question.jsonl",
            )
        choices = record.get("choices") or [record]
        answered = choices[0].get("turns")
        if not _are_texts(answered):
            raise _bad(place, "no turns of text")
        return str(model), asked[: len(answered)], tuple(answered)
    prompt, output = record.get("instruction", record.get("prompt")), record.get("output")
    if not isinstance(prompt, str) or not isinstance(output, str):
        raise _bad(place, f"keys {', '.join(list(record)[:6])}")
    return str(model), (prompt,), (output,)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _bad(place: str, seen: str) -> DataError:
    return DataError(
        f"{place}: {seen}",
        rule="an output is {instruction, output, generator}, or an MT-Bench answer {question_id, model_id, choices}",
        remedy="correct the record, or leave it out",
    )


def answers_for(path: Path, prompts: Sequence[str]) -> list[str]:
    """The answers of a file to these prompts: by the prompt where rows name it, else by their order."""
    found = [(place, *_told(place, record)) for place, record in read_records(path)]
    by_prompt = {prompt: answer for _, prompt, answer in found if prompt is not None}
    if all(prompt in by_prompt for prompt in prompts):
        return [by_prompt[prompt] for prompt in prompts]
    if any(prompt is not None for _, prompt, _ in found) or len(found) != len(prompts):
        missing = next((prompt for prompt in prompts if prompt not in by_prompt), "")
        raise DataError(
            f"{name_of(path)}: {len(found)} answers to {len(prompts)} questions, none to {missing[:60]!r}",
            rule="every question has an answer: a row with the same prompt, or as many rows in the same order",
            remedy="add the missing answers, or judge fewer questions: --limit",
        )
    return [answer for *_, answer in found]


def _told(place: str, record: dict[str, Any]) -> tuple[str | None, str]:
    """A row's prompt, if it says one, and its answer."""
    prompt = next(
        (record[key] for key in ("prompt", "instruction") if isinstance(record.get(key), str)), None
    )
    for key in ("response", "answer", "output", "text"):
        if isinstance(record.get(key), str):
            return prompt, record[key]
    raise DataError(
        f"{place}: keys {', '.join(list(record)[:6])}",
        rule="an answer stands under response, answer, output or text",
        remedy="name the column so",
    )


def one_model(found: dict[str, dict[Turns, Turns]], path: Path, *, model: str | None = None) -> str:
    """The model of a file: the one named, or the only one; DataError where that is not said."""
    if model in found:
        return str(model)
    if model is None and len(found) == 1:
        return next(iter(found))
    raise DataError(
        f"{name_of(path)} holds {', '.join(list(found)[:6]) or 'no answers'}"
        + (f", not {model!r}" if model else ""),
        rule="a pair has one model on each side",
        remedy="name it after the file: FILE:MODEL",
    )


def pair_up(one: str, of_one: dict[Turns, Turns], other: str, of_other: dict[Turns, Turns]) -> list[Pair]:
    """The prompts that both answered, in the first file's order; two entries of one name are told apart."""
    if one == other:
        one, other = f"{one} (1)", f"{other} (2)"
    pairs = [
        Pair(asked, (one, other), (answered, of_other[asked]))
        for asked, answered in of_one.items()
        if asked in of_other and len(answered) == len(of_other[asked])
    ]
    if not pairs:
        raise DataError(
            f"{one} and {other} have no prompt in common",
            rule="a pair is two answers to the same prompt",
            remedy="give outputs for the same prompts",
        )
    return pairs
