"""The words with which an endpoint is named and held to a budget, and what is made of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from burnish.errors import UsageError

EndpointUrl = Annotated[
    str | None, typer.Option("--endpoint", help="URL of an OpenAI-compatible endpoint, up to /v1.")
]
KeyVariable = Annotated[
    str, typer.Option("--key-env", help="Environment variable that holds the endpoint's key.")
]
Answers = Annotated[
    Path | None, typer.Option("--answers", help="Folder that keeps every answer (default: OUT.answers).")
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0.0, help="Stop asking at so many dollars, earlier runs included."),
]
PricePrompt = Annotated[
    float, typer.Option("--price-prompt", min=0.0, help="Dollars per million prompt tokens.")
]
PriceCompletion = Annotated[
    float, typer.Option("--price-completion", min=0.0, help="Dollars per million completion tokens.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Requests at once.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that a request may take.")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="How often a failed request is tried again.")]


@dataclass(frozen=True, slots=True)
class Budget:
    """What asking may cost, and how it is done."""

    max_cost: float | None
    price_prompt: float
    price_completion: float
    key_variable: str
    concurrency: int
    timeout: float
    retries: int


@contextmanager
def ends_tidily() -> Iterator[None]:
    """Within the block SIGTERM is like Ctrl-C: answers that are on their way are waited for, and kept."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread: whoever runs the thread handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def require_endpoint(url: str | None, what: str) -> str:
    """The URL; UsageError where none was given."""
    if url is None:
        raise UsageError(
            f"{what} without --endpoint",
            rule="a model that is asked over HTTP has a URL",
            remedy="say --endpoint http://localhost:8000/v1",
        )
    return url
