"""A loss that jumps, and a loss that no longer belongs to this run: both are told, and training goes on.

    1.92 1.88 1.90 1.85 ... 3.7         a spike: far outside of what the last updates varied by
    the last 32 in the middle at 4.1,
    the run's first 16 at 1.9           divergence: half again as high as the start, and by more than a nat

What is usual is a median and the median distance from it, which one outlier does not move.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

FIRST, LAST = 16, 32
SPREADS = 8.0
"""How many median distances above the median is a spike; of normal noise that is more than five deviations."""
LEAST_JUMP = 1.25
"""And at least so many times the median: a run at rest varies by next to nothing."""


class Watch:
    """Fed every loss in order; a resumed run feeds it the losses it had, so that it says the same."""

    def __init__(self, before: Iterable[float | None] = ()) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=LAST)
        self._is_high = self._is_lost = False
        for loss in before:
            if loss is not None:
                self.see(loss)

    def see(self, loss: float) -> str | None:
        """What is to be said of this loss, once for each time that it happens."""
        said = self._spike(loss)
        self._last.append(loss)
        if len(self._first) < FIRST:
            self._first.append(loss)
        return said or self._divergence()

    def _spike(self, loss: float) -> str | None:
        if len(self._last) < FIRST:
            return None
        usual = median(self._last)
        spread = median(abs(one - usual) for one in self._last)
        was_high, self._is_high = self._is_high, loss > max(usual + SPREADS * spread, LEAST_JUMP * usual)
        if self._is_high and not was_high:
            return f"loss spike: {loss:.4f}, where the last {len(self._last)} updates had {usual:.4f} in the middle"
        return None

    def _divergence(self) -> str | None:
        if len(self._last) < LAST:
            return None
        start, now = median(self._first), median(self._last)
        was_lost, self._is_lost = self._is_lost, now > max(1.5 * start, start + 1.0)
        if self._is_lost and not was_lost:
            return (
                f"the loss diverges: {now:.4f} over the last {LAST} updates, and {start:.4f} over the first {FIRST}; "
                "lower learning_rate, or raise warmup_ratio"
            )
        return None
