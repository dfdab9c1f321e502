"""Before any vote: what so many prompts can show, and how many are needed to see a difference.

Equal models win half. On 80 prompts the share won must lie 1.96 * 0.5 / sqrt(80) = 11 points from it to be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from burnish.errors import UsageError
from burnish.evaluation.intervals import quantile_of_normal

USUAL_POWER = 0.8
USUAL_DIFFERENCE = 0.05


@dataclass(frozen=True, slots=True)
class Power:
    """What a study of `prompts` can see; differences are of the win rate from one half, in 0..1."""

    prompts: int
    visible: float
    reliable: float
    difference: float
    needed_to_see: int
    needed_reliably: int

    def in_words(self) -> str:
        """The advice, in one paragraph."""
        wanted = f"{100 * self.difference:.0f} points"
        return (
            f"With {self.prompts} prompts you cannot see a difference under {100 * self.visible:.0f} points; one of "
            f"{100 * self.reliable:.0f} is found four times in five. For {wanted} you need about "
            f"{_rounded(self.needed_to_see)} prompts, and {_rounded(self.needed_reliably)} to find them four times "
            "in five."
        )


def study(prompts: int, *, difference: float = USUAL_DIFFERENCE, ties: float = 0.0) -> Power:
    """What `prompts` pairs show at 95% when a share of them is tied, and how many show `difference`."""
    if prompts < 1 or not 0 < difference < 0.5 or not 0 <= ties < 1:
        raise UsageError(
            f"{prompts} prompts, a difference of {100 * difference:g} points, {100 * ties:g}% ties",
            rule="at least one prompt, a difference between 0 and 50 points from half, and not everything tied",
            remedy="burnish arena power --prompts 80 --difference 5",
        )
    return Power(
        prompts,
        smallest_visible(prompts, ties=ties),
        smallest_reliable(prompts, ties=ties),
        difference,
        prompts_to_see(difference, ties=ties),
        prompts_needed(difference, ties=ties),
    )


def smallest_visible(prompts: int, *, ties: float = 0.0) -> float:
    """The least win rate above one half whose 95% interval leaves one half out."""
    return min(0.5, quantile_of_normal() * _deviation(0.0, ties) / math.sqrt(prompts))


def smallest_reliable(prompts: int, *, ties: float = 0.0, power: float = USUAL_POWER) -> float:
    """The difference that a study of this size finds with probability `power`."""
    low, high = 0.0, 0.5 * (1 - ties)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if prompts_needed(middle, ties=ties, power=power) <= prompts else (middle, high)
        )
    return high


def prompts_to_see(difference: float, *, ties: float = 0.0) -> int:
    """The prompts with which a difference that comes out as it is would count as seen."""
    return math.ceil((quantile_of_normal() * _deviation(0.0, ties) / difference) ** 2)


def prompts_needed(difference: float, *, ties: float = 0.0, power: float = USUAL_POWER) -> int:
    """The prompts with which the test against one half finds a true difference with probability `power`.

    What must be passed is set by the spread under the null, what is drawn has the spread under the truth.
    """
    if difference <= 0:
        return 1 << 62
    bar = quantile_of_normal() * _deviation(0.0, ties)
    drawn = NormalDist().inv_cdf(power) * _deviation(difference, ties)
    return max(1, math.ceil(((bar + drawn) / difference) ** 2))


def _deviation(difference: float, ties: float) -> float:
    """The standard deviation of one outcome (0, 0.5 or 1) whose mean is 0.5 + difference."""
    return math.sqrt(max(0.0, 0.25 * (1 - ties) - difference * difference))


def _rounded(prompts: int) -> int:
    """Up to the next number that advice may claim: 385 is "about 400", 42 "about 45"."""
    step = 5 * 10 ** max(0, len(str(prompts)) - 2) if prompts > 9 else 1
    return math.ceil(prompts / step) * step
