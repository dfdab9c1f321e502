"""What an answer is worth beside what was expected: each function decides one thing of one text.

exact_match(answer, "Paris.")           said just this, and stopped
numeric_match("... 7 x 6 = 42.", "42")  the last number, or the one after "####", is equal
chosen("The answer is (B).", ["red", "blue"])      1
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from burnish.data.reject import ConversionError
from burnish.data.strict import parse_json
from burnish.errors import DataError
from burnish.models.assistant import Answer

_NUMBER = re.compile(r"(?:(?<![\w)])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?<=\d)")
_FENCE = re.compile(r"```[a-zA-Z]*\n?(.*?)```", re.DOTALL)
LARGEST_EXPONENT = 6000


def exact_match(answer: Answer, expected: str) -> bool:
    """Whether the model said just this and then stopped by itself."""
    return answer.finish_reason == "stop" and answer.text.strip() == expected.strip()


def answers_and_stops(answer: Answer, value: str) -> bool:
    """Whether the model gave the asked value and then nothing more than its sentence: an assistant's behaviour."""
    sentence = answer.text.strip().split("\n")[0]
    return answer.finish_reason == "stop" and value in sentence and answer.text.strip() == sentence


def contains(text: str, expected: str) -> bool:
    """Whether the words are there, as whole words, in any case: "art" is not in "party"."""
    words = re.escape(" ".join(expected.split()).lower())
    return re.search(rf"(?<!\w){words}(?!\w)", " ".join(text.lower().split())) is not None


def regex_match(text: str, pattern: str, place: str = "expected") -> bool:
    """Whether the pattern is found anywhere; DataError where it is no regular expression."""
    try:
        return re.search(pattern, text) is not None
    except re.error as error:
        raise DataError(
            f"{place}: pattern {pattern!r}: {error}",
            rule='with metric "regex", `expected` is a regular expression of Python',
            remedy='correct the pattern, or say metric "contains"',
        ) from error


def final_number(text: str) -> Decimal | None:
    """The number after the last "####", as GSM8K writes its answers; else the last number there is."""
    marked = text.rpartition("####")[2] if "####" in text else ""
    for part, which in ((marked, 0), (text, -1)):
        found = [number for number in map(_number, _NUMBER.findall(part)) if number is not None]
        if found:
            return found[which]
    return None


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.replace(",", "")) if text else None
    except InvalidOperation:
        return None
    return number if number is None or abs(number.adjusted()) < LARGEST_EXPONENT else None


def numeric_match(text: str, expected: object) -> bool:
    """Whether the final number is the expected one: 1,000 is 1000.0, and half a unit off is wrong."""
    wanted = final_number(str(expected))
    return wanted is not None and final_number(text) == wanted


def chosen(text: str, choices: Sequence[str]) -> int | None:
    """Which choice an answer names: by its letter, else by its text where it names one only; None if it does not."""
    letters = "".join(chr(ord("A") + k) for k in range(min(len(choices), 26)))
    said = text.strip()
    alone = re.match(rf"\(?([{letters}])(?:[).:,\s]|$)", said)
    named = re.findall(rf"(?i:answer|option|choice)\W+(?i:is\W+)?\(?([{letters}])(?!\w)", said)
    if named or (alone and not re.match(r"[AI]\s+[a-z]", said)):
        return letters.index(named[-1] if named else alone[1] if alone else "")
    exact = [
        k
        for k, choice in enumerate(choices)
        if said.rstrip(".").lower() == choice.strip().rstrip(".").lower()
    ]
    there = exact or [k for k, choice in enumerate(choices) if contains(said, choice)]
    # "New York City" names "New York" too: the longest choice that holds the others counts
    longest = max(there, key=lambda k: len(choices[k]), default=None)
    if longest is None or not all(contains(choices[longest], choices[k]) for k in there):
        return None
    return longest


def read_json(text: str) -> tuple[bool, Any]:
    """Whether an answer is JSON, bare or in one code fence, and its value."""
    fenced = _FENCE.fullmatch(text.strip())
    try:
        return True, parse_json((fenced[1] if fenced else text).strip().encode("utf-8", "surrogatepass"))
    except ConversionError:
        return False, None


def same_json(one: object, other: object) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, true is not 1, the order of keys does not count."""
    match one, other:
        case (bool(), _) | (_, bool()):
            return one is other
        case (int() | float(), int() | float()):
            return math.isclose(one, other, rel_tol=1e-9)
        case (dict(), dict()):
            return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
        case (list(), list()):
            return len(one) == len(other) and all(map(same_json, one, other))
        case _:
            return one == other


def share(outcomes: Sequence[bool]) -> float:
    """The share of outcomes that are true; 0 of none."""
    return sum(outcomes) / len(outcomes) if outcomes else 0.0
