"""`burnish data score DATA --scores FILE`: numbers for rows, kept beside the data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli.data.asking import (
    Answers,
    Budget,
    Concurrency,
    EndpointUrl,
    KeyVariable,
    MaxCost,
    PriceCompletion,
    PricePrompt,
    Retries,
    Timeout,
    ends_tidily,
    require_endpoint,
)
from burnish.cli.data.options import AsJson, Counting, Format, Paths, Split, inputs_of
from burnish.cli.output import Output
from burnish.errors import UsageError
from burnish.types import Rejected

if TYPE_CHECKING:
    from burnish.curation.score import Scorer


def command(
    data: Paths,
    scores: Annotated[Path, typer.Option("--scores", help="JSON Lines file that keeps the scores.")],
    model: Annotated[str | None, typer.Option(help="Score by this model: nll, ifd, solved, unknown.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="Score by this sequence-classification directory: reward.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The good class, where --reward has several.")] = None,
    judge: Annotated[str | None, typer.Option(help="Score by this model behind --endpoint: judge.")] = None,
    endpoint: EndpointUrl = None,
    key_env: KeyVariable = "OPENAI_API_KEY",
    answers: Answers = None,
    max_cost: MaxCost = None,
    price_prompt: PricePrompt = 0.0,
    price_completion: PriceCompletion = 0.0,
    concurrency: Concurrency = 4,
    timeout: Timeout = 120.0,
    retries: Retries = 6,
    format: Format = "auto",
    split: Split = "train",
    as_json: AsJson = False,
) -> None:
    """Score rows; what is scored already is left, so that an interrupted run goes on where it was."""
    from burnish.curation.items import Item, read_items
    from burnish.curation.score import ScoreFile, score_items

    output = Output(as_json=as_json)
    budget = Budget(max_cost, price_prompt, price_completion, key_env, concurrency, timeout, retries)
    if sum(name is not None for name in (model, reward, judge)) != 1:
        raise UsageError(
            "score needs one of --model, --reward, --judge",
            rule="a run of scoring has one scorer; several runs may share a file",
            remedy="say, for example, --model marble",
        )
    with ExitStack() as stack:
        stack.enter_context(ends_tidily())
        folder = answers or scores.with_name(f"{scores.name}.answers")
        scorer = _scorer(model, reward, label, judge, endpoint, folder, budget, stack)
        file = stack.enter_context(ScoreFile(scores))
        progress = stack.enter_context(Counting())
        unreadable = 0

        def readable() -> Iterator[Item]:
            nonlocal unreadable
            for item in read_items(inputs_of(data, format, split)):
                if isinstance(item, Rejected):
                    unreadable += 1
                else:
                    yield item

        done = score_items(readable(), scorer, file, progress=progress)
    output.emit(
        {
            "scores": str(scores), "scorer": scorer.name, "values": scorer.values, "rows": done.rows,
            "computed": done.computed, "kept": done.kept, "unscored": done.unscored, "unreadable": unreadable,
        }
    )  # fmt: skip
    if not as_json:
        output.say(
            f"{scores}: {', '.join(scorer.values)} of {done.rows:,} rows by {scorer.name}: "
            f"{done.computed:,} computed, {done.kept:,} there already, "
            f"{done.unscored:,} not scored, {unreadable:,} unreadable"
        )
    if done.unscored:
        output.warn(f"{done.unscored:,} rows have no score (cost cap, or refused): run it again to go on")


def _scorer(
    model: str | None,
    reward: str | None,
    label: str | None,
    judge: str | None,
    endpoint: str | None,
    folder: Path,
    budget: Budget,
    stack: ExitStack,
) -> Scorer:
    """The one scorer that was asked for."""
    if judge is not None:
        from burnish.cli.data.teachers import open_endpoint, open_store
        from burnish.curation.score import JudgeScorer

        store = open_store(folder, budget, stack)
        return JudgeScorer(open_endpoint(require_endpoint(endpoint, "--judge"), judge, store, budget, stack))
    from burnish.parallel.runtime import prepare_process

    prepare_process()
    if reward is not None:
        from burnish.evaluation.reward import RewardModel

        return RewardModel(reward, label=label)
    from burnish.evaluation.row_scores import ModelScorer

    return ModelScorer(str(model))
