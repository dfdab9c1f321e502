"""The plan: which rows make up each update, as a pure function of (rows, seed, epoch), and how they are packed.

Nothing is iterated and nothing is remembered, so the data position of a run is one integer: its step.
`plan.rows_of(step)` is the same whatever came before, on any machine; `PackingPlan.packs_of(step)` adds the
lengths and the limits of a micro-batch, and is as pure. An update learns from exactly `batch_size` rows however they
are packed, so packing does not change what is optimised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from burnish.data.fill import deal

RowNumbers = np.ndarray[tuple[int], np.dtype[np.uint32]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Epochs of shuffled rows cut into global batches; the last batch of an epoch may be smaller.

    Steps are counted from 0. `num_rows` counts rows of the training set, not of the files.
    """

    num_rows: int
    batch_size: int
    num_epochs: float
    max_steps: int | None
    seed: int
    shuffle: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the rows."""
        return math.ceil(self.num_rows / self.batch_size)

    @property
    def num_steps(self) -> int:
        """Updates in the whole run."""
        if self.max_steps is not None:
            return self.max_steps
        return math.ceil(self.steps_per_epoch * self.num_epochs)

    def epoch_of(self, step: int) -> float:
        """How many epochs are done after `step` updates."""
        return step / self.steps_per_epoch

    def rows_of(self, step: int) -> list[int]:
        """The rows (indices into the training set) that update `step` learns from."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        chosen: list[int] = self._permutation(epoch)[rows].tolist()
        return chosen

    def order(self, epoch: int) -> list[int]:
        """The rows in the order of an epoch: a permutation keyed by (seed, epoch)."""
        everything: list[int] = self._permutation(epoch).tolist()
        return everything

    def _permutation(self, epoch: int) -> RowNumbers:
        if not self.shuffle:
            return in_order(self.num_rows)
        return permutation(self.num_rows, self.seed, epoch)


@dataclass(frozen=True, slots=True)
class PackingPlan:
    """How many tokens each row has, and what one micro-batch may hold: the packs of every step, before any is built.

    It knows no tokens, so it shares no prefixes: `data.pack.pack_all` deals a step's examples with them at hand.
    """

    plan: Plan
    lengths: np.ndarray[tuple[int], np.dtype[np.uint32]]
    max_tokens: int
    max_rows: int | None = None
    even: bool = False

    def packs_of(self, step: int) -> list[list[int]]:
        """The rows of each micro-batch of a step; every row of the step once."""
        rows = self.plan.rows_of(step)
        lengths = self.lengths[rows].tolist()
        dealt = deal(lengths, max_tokens=self.max_tokens, max_rows=self.max_rows, even=self.even)
        return [[rows[index] for index in pack] for pack in dealt]

    def sizes(self, epoch: int = 0) -> Iterator[list[int]]:
        """For each step of an epoch, the tokens of its packs."""
        first = epoch * self.plan.steps_per_epoch
        for step in range(first, first + self.plan.steps_per_epoch):
            yield [int(self.lengths[pack].sum()) for pack in self.packs_of(step)]


@lru_cache(maxsize=2)
def permutation(num_rows: int, seed: int, epoch: int) -> RowNumbers:
    """The rows of one epoch shuffled, kept while that epoch lasts: every step asks for a slice of it."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(num_rows).astype(np.uint32)


@lru_cache(maxsize=1)
def in_order(num_rows: int) -> RowNumbers:
    """The rows as the files have them."""
    return np.arange(num_rows, dtype=np.uint32)


def due(step: int, every: int | None, last: int) -> bool:
    """Whether something that happens every `every` updates happens after update number `step` (from 1).

    It always happens after the `last` update too; `every=None` means only then.
    """
    return step == last or (every is not None and step % every == 0)
