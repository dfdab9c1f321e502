"""What a campaign came to: how many trials, how many failures, and how much that leaves open.

Outcome("F5", "corruption", trials=500, failures=[], seed=7).bound   ->  0.006: 95% sure that it is less
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

SHOWN = 5


@dataclass(slots=True)
class Outcome:
    """One campaign; `kinds` counts what was tried, or what became of it, by name."""

    code: str
    title: str
    seed: int
    trials: int = 0
    failures: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    margin: str = ""

    def note(self, kind: str, failure: str | None = None) -> None:
        """Count a trial of a kind, and what went wrong in it."""
        self.trials += 1
        self.kinds[kind] += 1
        if failure is not None:
            self.failures.append(f"{kind}: {failure}")

    @property
    def bound(self) -> float:
        """The largest rate of failures that these trials do not refute at 95% (Clopper and Pearson, one-sided)."""
        return upper_bound(len(self.failures), self.trials)

    def row(self) -> str:
        """The campaign as a line of the table in docs/reliability.md."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        found = f"{kinds}; {self.margin}" if self.margin else kinds
        return (
            f"| {self.code} | {self.title} | {self.trials:,} | {len(self.failures)} | {self.bound:.2%} | {self.seed} "
            f"| {self.seconds:,.0f} s | {found} |"
        )

    def __str__(self) -> str:
        lines = [
            f"{self.code} {self.title}: {self.trials} trials, {len(self.failures)} failures (< {self.bound:.2%})"
        ]
        lines += [f"  {kind}: {count}" for kind, count in sorted(self.kinds.items())]
        lines += [f"  FAILED {failure}" for failure in self.failures[:SHOWN]]
        return "\n".join([*lines, self.margin] if self.margin else lines)


def upper_bound(failures: int, trials: int, *, confidence: float = 0.95) -> float:
    """The rate at which so few failures in so many trials would have a chance of 1 - confidence."""
    if trials == 0 or failures >= trials:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        if _chance_of_at_most(failures, trials, rate) > 1 - confidence:
            low = rate
        else:
            high = rate
    return high


def _chance_of_at_most(failures: int, trials: int, rate: float) -> float:
    if rate >= 1.0:
        return 0.0
    return math.fsum(
        math.exp(
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + (k * math.log(rate) if k else 0.0) + (trials - k) * math.log1p(-rate)
        )
        for k in range(failures + 1)
    )  # fmt: skip
