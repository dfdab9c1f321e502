"""Endpoints, local models and the store of their answers, opened as the command line says and closed with a stack."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from burnish.cli.data.asking import Budget
from burnish.curation.answers import AnswerStore, Prices, require_prices
from burnish.curation.endpoint import Endpoint, Manners


def open_store(folder: Path, budget: Budget, stack: ExitStack) -> AnswerStore:
    """The folder of kept answers, held until the stack closes."""
    require_prices(budget.max_cost, Prices(budget.price_prompt, budget.price_completion))
    return stack.enter_context(AnswerStore(folder, max_cost=budget.max_cost))


def open_endpoint(url: str, model: str, store: AnswerStore, budget: Budget, stack: ExitStack) -> Endpoint:
    """A model behind a URL."""
    return stack.enter_context(
        Endpoint(
            url,
            model,
            store=store,
            prices=Prices(budget.price_prompt, budget.price_completion),
            key_variable=budget.key_variable,
            manners=Manners(budget.concurrency, budget.timeout, budget.retries),
        )
    )
