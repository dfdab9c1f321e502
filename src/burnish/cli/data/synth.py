"""`burnish data synth PROMPTS --out FILE`: answers from a teacher, for given prompts or for invented ones."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

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
from burnish.cli.data.options import AsJson, Counting, Out, Overwrite, Split
from burnish.cli.output import Output
from burnish.errors import UsageError

if TYPE_CHECKING:
    from burnish.curation.answers import AnswerStore, Teacher
    from burnish.curation.prompts import Prompt
    from burnish.curation.synth import Grader, Settings


def command(
    prompts: Annotated[
        str, typer.Argument(help="Prompts, or with --instruct seeds: rows of any format, or .txt.")
    ],
    out: Out,
    teacher: Annotated[
        str,
        typer.Option(help="Model behind --endpoint; without it a run, a directory, a hub id or `marble`."),
    ],
    endpoint: EndpointUrl = None,
    instruct: Annotated[
        int | None, typer.Option(min=1, help="First have the teacher invent so many prompts like the seeds.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-k", min=1, help="Answers to each prompt.")] = 1,
    verifier: Annotated[
        str | None,
        typer.Option(help="Keep answers that agree with the row's own: exact, contains or number."),
    ] = None,
    reward: Annotated[
        str | None, typer.Option(help="Keep the best by this reward model's directory.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The good class, where --reward has several.")] = None,
    judge: Annotated[str | None, typer.Option(help="Keep the best by this model, from 1 to 10.")] = None,
    judge_endpoint: Annotated[
        str | None, typer.Option(help="The judge's endpoint, where it is not the teacher's.")
    ] = None,
    minimum: Annotated[float | None, typer.Option(help="Keep no answer graded below.")] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Keep every good answer, not only the best.")
    ] = False,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the likeliest token each time.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    system: Annotated[str, typer.Option(help="System prompt for the teacher; it is not in the rows.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the teacher's draws.")] = 0,
    license: Annotated[
        str, typer.Option(help="Written in every row: the terms of the teacher's output.")
    ] = "unstated",
    val_size: Annotated[
        float, typer.Option(min=0.0, help="Hold out: a share below 1, or a number of rows.")
    ] = 0.0,
    split: Split = "train",
    answers: Answers = None,
    key_env: KeyVariable = "OPENAI_API_KEY",
    max_cost: MaxCost = None,
    price_prompt: PricePrompt = 0.0,
    price_completion: PriceCompletion = 0.0,
    concurrency: Concurrency = 4,
    timeout: Timeout = 120.0,
    retries: Retries = 6,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make rows with a teacher. Every answer is kept: run it again to go on, and nothing is paid for twice."""
    from burnish.cli.data.teachers import open_store
    from burnish.curation.synth import Settings, distil
    from burnish.curation.writing import write_made

    output = Output(as_json=as_json)
    budget = Budget(max_cost, price_prompt, price_completion, key_env, concurrency, timeout, retries)
    settings = Settings(samples, temperature, max_tokens, seed, system, minimum, keep_all, license)
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(ends_tidily())
        store = open_store(answers or out.with_name(f"{out.name}.answers"), budget, stack)
        if store.num_lost:
            output.warn(
                f"{store.num_lost} requests of an earlier run were on their way when it ended: they may have "
                "been paid, count as paid, and are asked again"
            )
        asked = _teacher(teacher, endpoint, store, budget, stack)
        grader = _grader(verifier, reward, label, judge, judge_endpoint or endpoint, store, budget, stack)
        progress = stack.enter_context(Counting("prompts"))
        dropped: Counter[str] = Counter()
        wanted = _prompts(prompts, split, instruct, asked, settings, dropped)
        made = distil(wanted, asked, settings, grader=grader)
        key = {"teacher": asked.name, "place": asked.place, "settings": asdict(settings), "prompts": prompts}
        written = write_made(
            made, out, key=key, val_size=val_size, seed=seed, overwrite=overwrite, progress=progress
        )
    told: dict[str, Any] = {
        **written.as_dict(), "prompts_dropped": dict(dropped), "teacher": asked.name,
        "kept_answers": len(store), "lost_in_flight": store.num_lost, "spent": round(store.spent, 6),
        "seconds": round(time.monotonic() - started, 3),
    }  # fmt: skip
    output.emit(told)
    if not as_json:
        output.say(
            f"{out}: {written.rows:,} rows from {written.prompts:,} prompts, {written.held_out:,} held out; "
            f"{len(store):,} answers kept, ${store.spent:.4f} spent"
        )
        losses = [*written.lost.most_common(), *dropped.most_common()]
        output.table(("", "lost"), [(f"{count:,}", reason) for reason, count in losses])
    if written.lost["cost cap"]:
        output.warn(
            f"the cost cap of ${max_cost:.2f} was reached: raise --max-cost and run it again to go on"
        )


def _teacher(
    name: str, endpoint: str | None, store: AnswerStore, budget: Budget, stack: ExitStack
) -> Teacher:
    if endpoint is not None:
        from burnish.cli.data.teachers import open_endpoint

        return open_endpoint(endpoint, name, store, budget, stack)
    from burnish.evaluation.local_teacher import LocalTeacher
    from burnish.parallel.runtime import prepare_process

    prepare_process()
    return LocalTeacher(name, store=store)


def _grader(
    verifier: str | None,
    reward: str | None,
    label: str | None,
    judge: str | None,
    endpoint: str | None,
    store: AnswerStore,
    budget: Budget,
    stack: ExitStack,
) -> Grader | None:
    """Who chooses among a prompt's answers; nobody where none was named."""
    from burnish.curation.synth import JudgeGrader, Verifier
    from burnish.curation.verdicts import VERIFIERS

    if sum(name is not None for name in (verifier, reward, judge)) > 1:
        raise UsageError(
            "--verifier, --reward and --judge together",
            rule="one grader chooses among a prompt's answers",
            remedy="name one here; `burnish data score` and `select` take further ones",
        )
    if verifier is not None:
        if verifier not in VERIFIERS:
            raise UsageError(
                f"--verifier {verifier}",
                rule=f"a verifier is one of {', '.join(VERIFIERS)}",
                remedy="name one",
            )
        return Verifier(verifier)
    if reward is not None:
        from burnish.evaluation.reward import RewardModel

        return RewardModel(reward, label=label)
    if judge is not None:
        from burnish.cli.data.teachers import open_endpoint

        url = require_endpoint(endpoint, "--judge")
        return JudgeGrader(open_endpoint(url, judge, store, budget, stack))
    return None


def _prompts(
    path: str,
    split: str,
    instruct: int | None,
    teacher: Teacher,
    settings: Settings,
    dropped: Counter[str],
) -> Iterator[Prompt]:
    """The prompts to be answered: those of the file, or those invented from it; what is lost is counted."""
    from burnish.curation.instruct import Inventor
    from burnish.curation.prompts import Prompt, read_prompts

    found: list[Prompt] = []
    for prompt in read_prompts(path, split=split):
        if not isinstance(prompt, Prompt):
            dropped[prompt.reason] += 1
        elif instruct is None:
            yield prompt
        else:
            found.append(prompt)
    if instruct is not None:
        inventor = Inventor(teacher, found, seed=settings.seed)
        yield from inventor.invent(instruct)
        dropped.update({f"invented, {reason}": count for reason, count in inventor.lost.items()})
