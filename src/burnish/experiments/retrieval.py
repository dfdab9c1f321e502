"""Training rows that are like a question, by BM25 over their prompts (Robertson and Zaragoza, 2009).

BM25(["What is the capital of Peru?", "Who wrote Emma?"]).nearest("What is the capital of Chad?", 1)    [0]
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
SATURATION, LENGTH = 1.5, 0.75
"""k1, how soon a repeated word stops counting, and b, how much a long text is held back; the usual values."""


class BM25:
    """Texts that can be asked for the ones nearest to another."""

    def __init__(self, texts: Sequence[str]) -> None:
        bags = [Counter(_words(text)) for text in texts]
        self._lengths = [sum(bag.values()) for bag in bags]
        self._mean = sum(self._lengths) / max(1, len(bags)) or 1.0
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, bag in enumerate(bags):
            for word, count in bag.items():
                self._places[word].append((number, count))

    def nearest(self, text: str, number: int) -> list[int]:
        """The indices of so many texts, the nearest first; where words in common run out, the first ones there are."""
        scores = dict.fromkeys(range(len(self._lengths)), 0.0)
        for word in set(_words(text)):
            found = self._places.get(word, [])
            rarity = math.log(1 + (len(self._lengths) - len(found) + 0.5) / (len(found) + 0.5))
            for place, count in found:
                held_back = 1 - LENGTH + LENGTH * self._lengths[place] / self._mean
                scores[place] += rarity * count * (SATURATION + 1) / (count + SATURATION * held_back)
        return sorted(scores, key=lambda place: (-scores[place], place))[:number]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
