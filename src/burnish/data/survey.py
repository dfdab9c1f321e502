"""What an epoch costs before it is run: tokens, graded tokens, packs, how full they are, what sharing prefixes saves.

The packs are built as training builds them, by the function that training calls. Small sets are gone
through whole; of large ones a sample of steps, drawn by a key, stands for the epoch, and the survey says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from burnish.data.pack import Pack
from burnish.data.plan import Plan
from burnish.types import Example

ROWS_LOOKED_AT = 4096
"""How many rows are packed before a sample must do: about a second's work."""


@dataclass(frozen=True, slots=True)
class Survey:
    """One epoch in figures.

    `rows`, `examples`, `tokens` and `graded_tokens` are counted over all rows; what concerns packs, over
    `looked_at` of the epoch's `steps`: of their `full` tokens, every example counted whole, the packs hold
    `laid`, of which `padding` are nobody's.
    """

    rows: int
    examples: int
    tokens: int
    graded_tokens: int
    longest: int
    steps: int
    looked_at: int
    full: int
    laid: int
    padding: int
    packs: int
    largest: int
    shapes: int
    saved_by_step: tuple[float, ...]

    @property
    def is_exact(self) -> bool:
        """Whether every step of the epoch was looked at."""
        return self.looked_at == self.steps

    @property
    def saved(self) -> float:
        """The share of the tokens that shared prefixes spare."""
        return 1.0 - (self.laid - self.padding) / self.full

    @property
    def laid_in_epoch(self) -> int:
        """The tokens that an epoch computes, padding included; an estimate where steps were sampled."""
        return round(self.tokens * self.laid / self.full)

    @property
    def packs_in_epoch(self) -> int:
        """The forward passes of an epoch; an estimate where steps were sampled."""
        return round(self.packs * self.steps / self.looked_at)

    @property
    def saved_error(self) -> float:
        """The standard error of `saved`, from its spread over the sampled steps; 0 where it is exact."""
        if self.is_exact or self.looked_at < 2:
            return 0.0
        rest = 1.0 - self.looked_at / self.steps
        return float(np.std(self.saved_by_step, ddof=1) * np.sqrt(rest / self.looked_at))

    def fill(self, max_tokens: int) -> float:
        """How full packs of at most `max_tokens` are."""
        return self.laid / (self.packs * max_tokens)

    def describe(self, max_tokens: int) -> list[str]:
        """The figures in lines for people."""
        about = "" if self.is_exact else "about "
        lines = [
            f"{self.rows:,} rows, {self.examples:,} sequences, {self.tokens:,} tokens, "
            f"{self.graded_tokens:,} graded ({self.graded_tokens / self.tokens:.1%}); longest {self.longest:,}",
            f"an epoch: {self.steps:,} steps, {about}{self.packs_in_epoch:,} packs of at most {max_tokens:,} tokens, "
            f"{self.fill(max_tokens):.1%} full, the largest {self.largest:,}",
            f"{about}{self.laid_in_epoch:,} tokens computed; shared prefixes save {self.saved:.1%}"
            + (f" (±{2 * self.saved_error:.1%})" if not self.is_exact else ""),
        ]
        if not self.is_exact:
            lines.append(
                f"packs and savings from {self.looked_at:,} of the {self.steps:,} steps, drawn at random"
            )
        return lines


def survey(
    rows: Sequence[Sequence[Example]],
    plan: Plan,
    lay_out: Callable[[Sequence[Example]], list[Pack]],
    *,
    epoch: int = 0,
    most: int = ROWS_LOOKED_AT,
) -> Survey:
    """An epoch's figures; `lay_out` makes the packs of a step's examples, `most` rows are packed at the most.

    At least two steps are looked at, whatever `most` says.
    """
    looked_at = _steps(plan, epoch, most)
    full = laid = padding = packs = largest = 0
    shapes: set[int] = set()
    saved: list[float] = []
    for step in looked_at:
        made = lay_out([example for row in plan.rows_of(step) for example in rows[row]])
        whole, held = sum(pack.tokens for pack in made), sum(map(len, made))
        empty = sum(pack.padding for pack in made)
        full, laid, padding, packs = full + whole, laid + held, padding + empty, packs + len(made)
        largest = max(largest, *map(len, made))
        shapes.update(map(len, made))
        saved.append(1.0 - (held - empty) / whole)
    lengths = [len(example) for views in rows for example in views]
    return Survey(
        rows=len(rows),
        examples=len(lengths),
        tokens=sum(lengths),
        graded_tokens=sum(example.num_graded for views in rows for example in views),
        longest=max(lengths),
        steps=plan.steps_per_epoch,
        looked_at=len(looked_at),
        full=full,
        laid=laid,
        padding=padding,
        packs=packs,
        largest=largest,
        shapes=len(shapes),
        saved_by_step=tuple(saved),
    )


def _steps(plan: Plan, epoch: int, most: int) -> list[int]:
    first = epoch * plan.steps_per_epoch
    wanted = max(2, most // plan.batch_size)
    if wanted >= plan.steps_per_epoch:
        return list(range(first, first + plan.steps_per_epoch))
    generator = np.random.Generator(np.random.Philox(key=[plan.seed, epoch]))
    drawn = generator.choice(plan.steps_per_epoch, size=wanted, replace=False)
    return sorted(first + int(step) for step in drawn)
