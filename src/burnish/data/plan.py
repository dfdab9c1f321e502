"""The plan: which rows make up each update, as a pure function of (rows, seed, epoch).

Nothing is iterated and nothing is remembered, so the data position of a run is one integer: its step.
`plan.rows_of(step)` is the same whatever came before, on any machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        order = self.order(epoch)
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def order(self, epoch: int) -> list[int]:
        """The rows in the order of an epoch: a permutation keyed by (seed, epoch)."""
        if not self.shuffle:
            return list(range(self.num_rows))
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        return [int(row) for row in generator.permutation(self.num_rows)]


def due(step: int, every: int | None, last: int) -> bool:
    """Whether something that happens every `every` updates happens after update number `step` (from 1).

    It always happens after the `last` update too; `every=None` means only then.
    """
    return step == last or (every is not None and step % every == 0)
