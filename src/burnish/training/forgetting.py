"""The forgetting guard: what a run does to what the base could do, measured at each evaluation, and what follows.

    step  probe          base   now    drift [95%]              budget
     20   text           3.104  3.110  +0.006 [0.002, 0.010]    0.02
     20   instructions   2.611  2.702  +0.091 [0.061, 0.121]    0.02     past it: act

Drift is the mean over rows of the rise of a row's loss, in nats a token: every row was asked of the base too, so the
interval is that of paired differences (Student's t). A probe is past its budget where the interval's lower end is: on
what may be noise nothing is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from burnish.data.pack import Pack
from burnish.models.forward import Forward, pack_attention
from burnish.models.generate import evaluating
from burnish.recipe.schema import Forgetting
from burnish.training.probes import Probed
from burnish.types import Example

LayOut = Callable[[Sequence[Example]], list[Pack]]
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

MOST_REPLAY = 0.5
"""A share is raised up to here: past it a run learns more of the replayed text than of its task."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One probe at one step; losses are means over rows of a row's mean -ln p."""

    probe: str
    loss: float
    base_loss: float
    drift: float
    low: float
    high: float
    budget: float

    @property
    def breached(self) -> bool:
        """Whether the budget is surely exceeded."""
        return self.low > self.budget

    def __str__(self) -> str:
        return (
            f"{self.probe}: {self.drift:+.3f} nats a token [{self.low:+.3f}, {self.high:+.3f}], "
            f"budget {self.budget:g} (perplexity {math.expm1(self.drift):+.1%})"
        )


class Point(NamedTuple):
    """A checkpoint by what it gains and what it loses: `drift` is the worst probe's, in budgets."""

    step: int
    task_loss: float
    drift: float
    breached: bool


class Guard:
    """The probes of a run, and the base's loss on each of their rows."""

    def __init__(
        self,
        settings: Forgetting,
        probes: Sequence[Probed],
        lay_out: LayOut,
        *,
        base: Sequence[Sequence[float]] = (),
    ) -> None:
        self.settings = settings
        self._probes = tuple(probes)
        self._packs = [lay_out(list(probe.examples)) for probe in probes]
        self._base: list[Floats] = [np.asarray(losses, dtype=np.float64) for losses in base]

    def ask_base(self, forward: Forward) -> None:
        """Measure the base, once, before anything has moved."""
        if not self._base:
            self._base = self._ask(forward)

    def measure(self, forward: Forward) -> list[Measure]:
        """How far each probe is from the base by now."""
        return [
            _measure(probe, base, now)
            for probe, base, now in zip(self._probes, self._base, self._ask(forward), strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """As probes.json has it: the rows as tokens, and the base's loss on each."""
        probes = [
            {**probe.as_dict(), "base": losses.tolist()}
            for probe, losses in zip(self._probes, self._base, strict=True)
        ]
        return {"version": 1, "asked": asked(self.settings), "probes": probes}

    def _ask(self, forward: Forward) -> list[Floats]:
        with evaluating(forward.model), pack_attention(forward.model, packed=forward.packed):
            return [
                row_losses(forward, packs, len(probe.examples))
                for probe, packs in zip(self._probes, self._packs, strict=True)
            ]


def asked(settings: Forgetting) -> list[dict[str, Any]]:
    """What decides which rows probes have, to tell whether those in probes.json are these."""
    return [probe.model_dump(mode="json", exclude={"budget"}) for probe in settings.probes]


def row_losses(forward: Forward, packs: Iterable[Pack], num_rows: int) -> Floats:
    """Mean -ln p of each row, whose number its example has as its source; within `pack_attention`."""
    sums, counts = np.zeros(num_rows), np.zeros(num_rows)
    for pack in packs:
        nll = forward.judge(pack)[1].double().cpu().numpy()
        sums += np.bincount(pack.sources, weights=nll, minlength=num_rows)
        counts += np.bincount(pack.sources, minlength=num_rows)
    return sums / counts


def paired_t(differences: Floats, *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean over at least two rows."""
    n = len(differences)
    z, f = NormalDist().inv_cdf(0.5 + confidence / 2), n - 1
    # Student's quantile by three terms of its series: 2.069 with 23 degrees of freedom
    t = z + (z**3 + z) / (4 * f) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)
    middle, half = float(differences.mean()), t * float(differences.std(ddof=1)) / math.sqrt(n)
    return middle - half, middle + half


def raised(share: float) -> float:
    """The next share of replay: twice as much, at least five points more, at most half of all."""
    return min(MOST_REPLAY, max(2 * share, share + 0.05))


def point_of(step: int, task_loss: float, measures: Sequence[Measure]) -> Point:
    """A step as a point of the plane of gain and loss."""
    return Point(
        step,
        task_loss,
        max(measure.drift / measure.budget for measure in measures),
        any(measure.breached for measure in measures),
    )


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both held-out loss and drift, by step."""
    everything = list(points)
    return [one for one in everything if not any(_beats(other, one) for other in everything)]


def choose(points: Iterable[Point]) -> Point | None:
    """The best held-out loss within the budget (the end of the front there); where none is within it, the least drift.

    An order of all points: whoever is first among those so far need only be compared with the next.
    """
    return min(
        points,
        key=lambda p: (p.breached, p.drift if p.breached else p.task_loss, p.drift, p.step),
        default=None,
    )


def _beats(one: Point, other: Point) -> bool:
    no_worse = one.task_loss <= other.task_loss and one.drift <= other.drift
    return no_worse and (one.task_loss < other.task_loss or one.drift < other.drift)


def _measure(probe: Probed, base: Floats, now: Floats) -> Measure:
    low, high = paired_t(now - base)
    return Measure(
        probe=probe.name,
        loss=float(now.mean()),
        base_loss=float(base.mean()),
        drift=float((now - base).mean()),
        low=low,
        high=high,
        budget=probe.budget,
    )
