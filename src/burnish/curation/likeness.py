"""Whether a short text says what another one said: shared words over all words, found without comparing all pairs.

seen = Seen(0.7)
seen.nearest("Name three red fruits.")       None, and from now on it is seen
seen.nearest("Name three red fruits now.")   0        the first text, of whose words it shares four in five
"""

from __future__ import annotations

import math
import re
from collections import defaultdict

_WORD = re.compile(r"\w+")


def words_of(text: str) -> frozenset[str]:
    """The words of a text, in lower case; of scripts without spaces, its characters."""
    found = _WORD.findall(text.casefold())
    return frozenset(piece for word in found for piece in (word if _is_unspaced(word) else (word,)))


class Seen:
    """Texts met so far. Two are alike whose words overlap by `threshold` (Jaccard) or more."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._texts: list[frozenset[str]] = []
        self._holders: defaultdict[str, list[int]] = defaultdict(list)

    def nearest(self, text: str) -> int | None:
        """The number of an earlier text that is like it; otherwise it is taken in, and None."""
        words = words_of(text)
        # Jaccard >= t needs ceil(t n) shared words, so one of the n - ceil(t n) + 1 rarest is among them.
        num_looked_up = len(words) - math.ceil(self._threshold * len(words)) + 1
        rarest = sorted(words, key=lambda word: (len(self._holders.get(word, ())), word))[:num_looked_up]
        for number in sorted({holder for word in rarest for holder in self._holders.get(word, ())}):
            other = self._texts[number]
            if len(words & other) >= self._threshold * len(words | other):
                return number
        for word in words:
            self._holders[word].append(len(self._texts))
        self._texts.append(words)
        return None


def _is_unspaced(word: str) -> bool:
    return any("\u3040" <= char <= "\u9fff" for char in word)
