"""What an audit reads, a row, and what it finds: a rate against a baseline, with intervals and a corrected p."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from burnish.curation import tells
from burnish.curation.rates import chance_p, wilson_interval
from burnish.types import Origin

LEVEL = 0.05
SMALLEST_DIFFERENCE = 0.02
"""A difference of fewer points is not reported, however sure: a large set makes everything significant."""
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Audited:
    """A row as the audit reads it; `rival` is an answer that was judged worse, `score` what somebody gave this one."""

    origin: Origin
    prompt: str
    answer: str
    source: str = ""
    rival: str | None = None
    score: float | None = None
    offered: tuple[str, ...] | None = None

    def settled(self) -> Audited:
        """The row with the options that its prompt offers, where nobody named them."""
        found = self.offered if self.offered is not None else tuple(tells.options(self.prompt))
        return replace(self, offered=found)


@dataclass(frozen=True, slots=True)
class Finding:
    """One test: a rate where the tell stands, the rate it is held against, and how sure the difference is."""

    name: str
    says: str
    hits: int
    rows: int
    baseline: float
    baseline_rows: float
    p: float
    adjusted: float = 1.0
    examples: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """The share of hits."""
        return self.hits / self.rows if self.rows else math.nan

    @property
    def is_bias(self) -> bool:
        """Whether it is reported as a bias."""
        return self.adjusted < LEVEL and self.rate - self.baseline >= SMALLEST_DIFFERENCE

    def as_dict(self) -> dict[str, Any]:
        """The finding with its intervals."""
        low, high = wilson_interval(self.hits, self.rows)
        fields = {**asdict(self), "rate": self.rate, "interval": [low, high], "is_bias": self.is_bias}
        if self.baseline_rows:
            fields["baseline_interval"] = list(
                wilson_interval(self.baseline * self.baseline_rows, self.baseline_rows)
            )
        return fields


@dataclass
class Audit:
    """All findings, the surest first, and what could not be tested for want of rows."""

    rows: int
    findings: list[Finding]
    untested: dict[str, str] = field(default_factory=dict)

    @property
    def biases(self) -> list[Finding]:
        """The findings that hold after correction for the number of tests."""
        return [finding for finding in self.findings if finding.is_bias]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rows": self.rows,
            "biases": [finding.name for finding in self.biases],
            "findings": [finding.as_dict() for finding in self.findings],
            "untested": self.untested,
        }


def against_chance(name: str, says: str, hits: Sequence[Origin], sizes: Counter[int]) -> Finding:
    """A share against 1 in k, where `sizes` counts the rows that offer k things."""
    rows = sizes.total()
    expected = sum(number / k for k, number in sizes.items())
    p = chance_p(len(hits), [(number, 1 / k) for k, number in sorted(sizes.items())])
    return Finding(name, says, len(hits), rows, expected / rows, 0, p, 1.0, places(hits))


def adjusted_to(finding: Finding, value: float) -> Finding:
    """The finding with its p corrected."""
    return replace(finding, adjusted=value)


def places(origins: Iterable[Origin]) -> tuple[str, ...]:
    """Where the first few stand."""
    return tuple(str(origin) for origin, _ in zip(origins, range(EXAMPLES), strict=False))
