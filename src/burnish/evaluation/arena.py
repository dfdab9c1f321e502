"""Blind pairs for a person: who is on which side is drawn, and not told until the votes are counted.

The order of pairs and the sides hang on (seed, rater, pair) alone. So a session goes on where it stopped, two raters
see different sides, and nobody can read a side off the order of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from burnish.evaluation.outputs import Pair, Turns
from burnish.evaluation.votes import Vote, VoteFile

KEYS = {"a": "left", "b": "right", "t": "tie", "x": "both_bad"}
"""What a rater types: A and B are the left and the right answer, whoever wrote them."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a rater sees of a pair: nothing that names a model."""

    asked: Turns
    left: Turns
    right: Turns
    number: int
    of: int


class Session:
    """One rater's way through the pairs."""

    def __init__(self, pairs: Sequence[Pair], votes: VoteFile, *, rater: str, seed: int = 0) -> None:
        self.rater = rater
        self._votes = votes
        self._seed = seed
        self._pairs = sorted(pairs, key=lambda pair: self._draw("order", pair))

    @property
    def done(self) -> int:
        """How many of the pairs this rater has voted on."""
        return len(self._pairs) - len(self._open())

    def next(self) -> Shown | None:
        """The next pair without a vote of this rater; None when all have one."""
        waiting = self._open()
        if not waiting:
            return None
        pair = waiting[0]
        left, right = pair.answers if self._is_a_left(pair) else pair.answers[::-1]
        return Shown(pair.asked, left, right, len(self._pairs) - len(waiting) + 1, len(self._pairs))

    def vote(self, key: str) -> None:
        """Record what the rater typed (a key of KEYS) about the pair that `next` shows."""
        pair = self._open()[0]
        first = "a" if self._is_a_left(pair) else "b"
        second = "b" if first == "a" else "a"
        said = KEYS[key]
        self._votes.add(Vote(pair, self.rater, {"left": first, "right": second}.get(said, said), first))

    def undo(self) -> bool:
        """Take the last vote back, so that `next` shows its pair again."""
        return self._votes.undo(self.rater) is not None

    def _open(self) -> list[Pair]:
        voted = {vote.pair.id for vote in self._votes.votes if vote.rater == self.rater}
        return [pair for pair in self._pairs if pair.id not in voted]

    def _is_a_left(self, pair: Pair) -> bool:
        return self._draw("side", pair)[0] % 2 == 0

    def _draw(self, what: str, pair: Pair) -> bytes:
        return blake2b(f"{what}:{self._seed}:{self.rater}:{pair.id}".encode(), digest_size=8).digest()
