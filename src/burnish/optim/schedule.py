"""The learning rate as a closed form of the step: nothing to save, nothing to replay on resume.

Over 100 steps with 10 of warm-up, peak 1.0:

    step        0    4    9    10   55    99
    constant   .1   .5    1    1     1     1
    linear     .1   .5    1    1    .5    .01
    cosine     .1   .5    1    1    .5    .0003
    wsd        .1   .5    1    1     1    .05     stable, then linear over the last fifth
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAY_SHARE = 0.2
"""The share of a `wsd` run over which the rate falls (arXiv 2404.06395, section 4, uses 10 to 20%)."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up to the peak, then the named shape down to zero just after the last of `num_steps` updates."""

    kind: str
    peak: float
    num_steps: int
    warmup_steps: int

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.peak * self._shape(min(1.0, done))

    def _shape(self, done: float) -> float:
        match self.kind:
            case "constant":
                return 1.0
            case "linear":
                return 1.0 - done
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * done))
            case "wsd":
                return min(1.0, (1.0 - done) / DECAY_SHARE)
            case unknown:
                raise ValueError(f"no such schedule: {unknown!r}")


@dataclass(frozen=True, slots=True)
class Relay:
    """Schedules one after another, each over its own updates."""

    schedules: tuple[Schedule, ...]

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0 over all."""
        for schedule in self.schedules[:-1]:
            if step < schedule.num_steps:
                return schedule.rate(step)
            step -= schedule.num_steps
        return self.schedules[-1].rate(step)


def warmup_length(num_steps: int, *, warmup_steps: int | None, warmup_ratio: float) -> int:
    """The warm-up in updates: as given, or a share of the run rounded up."""
    if warmup_steps is not None:
        return min(warmup_steps, num_steps)
    return min(num_steps, math.ceil(num_steps * warmup_ratio))
