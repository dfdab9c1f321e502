"""When fine-tuning has paid for itself: a fixed cost once, against what each request saves.

Without prices, tokens are what is paid: a token fed or produced counts one, a token trained on three (forward, and
twice that backward). 300,000 tokens of training against 150 tokens less in each request pay after 6,000 requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TRAINED_TOKEN = 3
MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in any one currency; tokens by the million. The tuned model's are the base's where none are said."""

    prompt: float | None = None
    completion: float | None = None
    tuned_prompt: float | None = None
    tuned_completion: float | None = None
    training: float = 0.0
    row: float = 0.0

    @property
    def are_said(self) -> bool:
        """Whether money is counted, not tokens."""
        return self.prompt is not None or self.completion is not None


@dataclass(frozen=True, slots=True)
class Spent:
    """What fine-tuning took: demonstrations, and tokens that went through training."""

    rows: int
    tokens: int


def payback(
    prices: Prices, prompting: tuple[float, float], tuned: tuple[float, float], spent: Spent
) -> tuple[int | None, str]:
    """After how many requests, and the sentence that says so; (prompt, completion) tokens of a request of each."""
    if prices.are_said:
        asked, answered = prices.prompt or 0.0, prices.completion or 0.0
        own = (_or(prices.tuned_prompt, asked), _or(prices.tuned_completion, answered))
        before = (prompting[0] * asked + prompting[1] * answered) / MILLION
        after = (tuned[0] * own[0] + tuned[1] * own[1]) / MILLION
        fixed = prices.training + prices.row * spent.rows
        terms = f"a request costs {before:.3g} prompted, {after:.3g} tuned; tuning costs {fixed:,.2f} once"
    else:
        before, after = sum(prompting), sum(tuned)
        fixed = float(TRAINED_TOKEN * spent.tokens)
        terms = (
            f"a request takes {before:,.0f} tokens prompted, {after:,.0f} tuned; training took "
            f"{spent.tokens:,} tokens, each worth {TRAINED_TOKEN}"
        )
    saved = before - after
    if saved <= 0:
        return None, f"a tuned request saves nothing: fine-tuning pays by its quality alone ({terms})"
    requests = math.ceil(round(fixed / saved, 6))
    return requests, f"fine-tuning pays for itself after {requests:,} requests ({terms})"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
