"""The plan: which rows make up each update, as a pure function of (rows, seed, epoch).

Nothing is iterated and nothing is remembered, so the data position of a run is one integer: its step.
`plan.rows_of(step)` is the same whatever came before, on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


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
        return [int(row) for row in self._permutation(epoch)[rows]]

    def order(self, epoch: int) -> list[int]:
        """The rows in the order of an epoch: a permutation keyed by (seed, epoch)."""
        return [int(row) for row in self._permutation(epoch)]

    def _permutation(self, epoch: int) -> range | np.ndarray[tuple[int], np.dtype[np.int64]]:
        if not self.shuffle:
            return range(self.num_rows)
        return permutation(self.num_rows, self.seed, epoch)


@lru_cache(maxsize=2)
def permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The rows of one epoch shuffled, kept while that epoch lasts: every step asks for a slice of it."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(num_rows)


def due(step: int, every: int | None, last: int) -> bool:
    """Whether something that happens every `every` updates happens after update number `step` (from 1).

    It always happens after the `last` update too; `every=None` means only then.
    """
    return step == last or (every is not None and step % every == 0)
