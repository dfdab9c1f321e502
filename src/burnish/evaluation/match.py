"""Scores of answers against what was expected, and shares with an interval around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from burnish.models.assistant import Answer

CONFIDENCE_95 = 1.959964


def exact_match(answer: Answer, expected: str) -> bool:
    """Whether the model said just this and then stopped by itself."""
    return answer.finish_reason == "stop" and answer.text.strip() == expected.strip()


def answers_and_stops(answer: Answer, value: str) -> bool:
    """Whether the model gave the asked value and then nothing more than its sentence: an assistant's behaviour."""
    sentence = answer.text.strip().split("\n")[0]
    return answer.finish_reason == "stop" and value in sentence and answer.text.strip() == sentence


def share(outcomes: Sequence[bool]) -> float:
    """The share of outcomes that are true; 0 of none."""
    return sum(outcomes) / len(outcomes) if outcomes else 0.0


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927): 98 of 100 gives (0.930, 0.994)."""
    if trials == 0:
        return 0.0, 1.0
    z, p = CONFIDENCE_95, successes / trials
    middle = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return (middle - half) / (1 + z * z / trials), (middle + half) / (1 + z * z / trials)
