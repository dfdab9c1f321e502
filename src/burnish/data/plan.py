"""The plan: which rows make up each update, a pure function of (rows, mixture, seed, epoch), and how they are packed.

Nothing is iterated and nothing is remembered, so the data position of a run is one integer: its step.
`plan.rows_of(step)` is the same whatever came before, on any machine; `PackingPlan.packs_of(step)` adds the
lengths and the limits of a micro-batch, and is as pure. An update learns from exactly `batch_size` rows however they
are packed, so packing does not change what is optimised.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from burnish.data.fill import deal
from burnish.data.mixture import Mixture, plain_mixture


@dataclass(frozen=True, slots=True)
class Plan:
    """Epochs of shuffled rows cut into global batches; the last batch of an epoch may be smaller.

    Steps are counted from 0. `num_rows` counts rows of the training set, not of the files. Without a `mixture` an
    epoch is every row once.
    """

    num_rows: int
    batch_size: int
    num_epochs: float
    max_steps: int | None
    seed: int
    shuffle: bool = True
    mixture: Mixture | None = None

    @property
    def mixed(self) -> Mixture:
        """What an epoch holds."""
        return self.mixture or plain_mixture(self.num_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one epoch."""
        return math.ceil(self.mixed.length / self.batch_size)

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
        chosen: list[int] = self.mixed.order(epoch, seed=self.seed, shuffle=self.shuffle)[rows].tolist()
        return chosen

    def order(self, epoch: int) -> list[int]:
        """The rows in the order of an epoch, keyed by (seed, epoch)."""
        everything: list[int] = self.mixed.order(epoch, seed=self.seed, shuffle=self.shuffle).tolist()
        return everything

    def times_used(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """How often the whole run learns from each row."""
        used = np.zeros(self.num_rows, dtype=np.int64)
        epochs, rest = divmod(self.num_steps, self.steps_per_epoch)
        for epoch in range(epochs + bool(rest)):
            order = self.mixed.order(epoch, seed=self.seed, shuffle=self.shuffle)
            used += np.bincount(
                order[: None if epoch < epochs else rest * self.batch_size], minlength=self.num_rows
            )
        return used


@dataclass(frozen=True, slots=True)
class Course:
    """Plans one after another, as one: the steps and the rows of each follow those of the plan before it."""

    plans: tuple[Plan, ...]

    @property
    def num_steps(self) -> int:
        """Updates of all plans."""
        return self.first_steps[-1]

    @property
    def first_steps(self) -> list[int]:
        """The first step of each plan, and the end of the last."""
        return list(accumulate((plan.num_steps for plan in self.plans), initial=0))

    def stage_of(self, step: int) -> tuple[int, int]:
        """The number of the plan that makes update `step`, and which of its own updates that is."""
        first = self.first_steps
        number = min(bisect_right(first, step) - 1, len(self.plans) - 1)
        return number, step - first[number]

    def epoch_of(self, step: int) -> float:
        """How many epochs of its plan are done after `step` updates."""
        number, own = self.stage_of(max(0, step - 1))
        return self.plans[number].epoch_of(own + min(step, 1))

    def rows_of(self, step: int) -> list[int]:
        """The rows (indices into the rows of all plans, end to end) that update `step` learns from."""
        number, own = self.stage_of(step)
        before = sum(plan.num_rows for plan in self.plans[:number])
        return [before + row for row in self.plans[number].rows_of(own)]

    def times_used(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """How often the whole run learns from each row."""
        return np.concatenate([plan.times_used() for plan in self.plans])


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


def due(step: int, every: int | None, last: int) -> bool:
    """Whether something that happens every `every` updates happens after update number `step` (from 1).

    It always happens after the `last` update too; `every=None` means only then.
    """
    return step == last or (every is not None and step % every == 0)
