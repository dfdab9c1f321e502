"""`burnish compare RUN` or `A B`: base and tuned, or two models, on the same prompts; with --judge, who wins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli.chat import MaxNewTokens, Seed, Temperature
from burnish.cli.data.asking import (
    Budget,
    Concurrency,
    EndpointUrl,
    KeyVariable,
    MaxCost,
    PriceCompletion,
    PricePrompt,
    Retries,
    Timeout,
)
from burnish.cli.judging import Again, JudgeChoice, JudgeName, RewardName, VotesPath, run_judge, tell
from burnish.cli.output import Output
from burnish.errors import DataError, UsageError
from burnish.evaluation.outputs import Pair
from burnish.evaluation.power import study
from burnish.evaluation.votes import VoteFile
from burnish.models.assistant import (
    DEFAULT_NEW_TOKENS,
    DEFAULT_TEMPERATURE,
    Answer,
    Assistant,
    load_assistant,
)
from burnish.models.tokenizer import Prompt
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe
from burnish.recipe.schema import Recipe
from burnish.training.directory import open_run

_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def command(
    run: Annotated[Path, typer.Argument(help="A finished run directory, or a model.", metavar="RUN|A")],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(help="B, where two models are compared; then prompts. None: the recipe's own."),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Text file with a prompt a line.")] = None,
    max_new_tokens: MaxNewTokens = DEFAULT_NEW_TOKENS,
    temperature: Temperature = DEFAULT_TEMPERATURE,
    seed: Seed = 0,
    judge: JudgeName = None,
    endpoint: EndpointUrl = None,
    reward: RewardName = None,
    votes: VotesPath = Path("votes.jsonl"),
    again: Again = 0,
    key_env: KeyVariable = "OPENAI_API_KEY",
    max_cost: MaxCost = None,
    price_prompt: PricePrompt = 0.0,
    price_completion: PriceCompletion = 0.0,
    concurrency: Concurrency = 4,
    timeout: Timeout = 120.0,
    retries: Retries = 6,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON line a prompt, then the judge's.")
    ] = False,
) -> None:
    """Ask two models the same; a base without a chat template is given the prompt as plain text."""
    prepare_process()
    other, given = _other(run, prompts or [])
    recipe = _recipe(run) if other is None or (run / "resolved.yaml").is_file() else None
    asked = _prompts(given, file, recipe.sample_prompts if recipe else ())
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    output = Output(as_json=as_json)
    judged = judge is not None or reward is not None
    if judged:
        output.say(study(len(asked)).in_words(), style="dim")
    names = ("base", "tuned") if other is None else (str(run), other)
    labels = ("base", "tuned") if other is None else ("a", "b")
    before = _first(run, other, recipe).answer(asked, **settings)
    after = load_assistant(other or str(run)).answer(asked, **settings)
    for prompt, one, two in zip(asked, before, after, strict=True):
        output.emit({"prompt": prompt, labels[0]: _described(one), labels[1]: _described(two)})
        if not as_json and not judged:
            output.say(f"\n{prompt}", style="bold")
            rows = [
                (name, _ending(answer), answer.text) for name, answer in zip(names, (one, two), strict=True)
            ]
            output.table(("", "", ""), rows)
    if judged:
        budget = Budget(max_cost, price_prompt, price_completion, key_env, concurrency, timeout, retries)
        given_votes = VoteFile(votes)
        pairs = _pairs(asked, names, before, after)
        run_judge(JudgeChoice(judge, endpoint, reward, again, budget), pairs, given_votes, output)
        ids = {pair.id for pair in pairs}
        tell([vote for vote in given_votes.votes if vote.pair.id in ids], output)


def _other(run: Path, words: list[str]) -> tuple[str | None, list[str]]:
    """The second model, where the first word names one (beside a run, no hub id), and the prompts."""
    is_run = (run / "resolved.yaml").is_file()
    if words and (
        words[0] == "marble" or Path(words[0]).is_dir() or (not is_run and _ON_HUB.fullmatch(words[0]))
    ):
        return words[0], words[1:]
    return None, words


def _recipe(run: Path) -> Recipe:
    return load_recipe(open_run(run).path / "resolved.yaml", []).recipe


def _first(run: Path, other: str | None, recipe: Recipe | None) -> Assistant:
    """The left side: A, or the base that the run was tuned from."""
    if other is None and recipe is not None:
        return load_assistant(recipe.model, chat_template=recipe.chat_template)
    return load_assistant(str(run))


def _pairs(
    asked: list[Prompt], names: tuple[str, str], before: list[Answer], after: list[Answer]
) -> list[Pair]:
    """The tuned model, or A, is the first of each pair: it is the one whose win rate is told."""
    if any(not isinstance(prompt, str) for prompt in asked):
        raise UsageError(
            "a prompt that is a list of messages",
            rule="a judge is shown prompts of one text",
            remedy="give prompts as text: --file prompts.txt",
        )
    sides = [(names[0], before), (names[1], after)]
    if names == ("base", "tuned"):
        sides.reverse()
    (one, ones), (two, twos) = sides
    return [
        Pair((str(prompt),), (one, two), ((left.text,), (right.text,)))
        for prompt, left, right in zip(asked, ones, twos, strict=True)
    ]


def _prompts(given: list[str], file: Path | None, samples: tuple[Prompt, ...]) -> list[Prompt]:
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file}: {error}",
                rule="--file is a text file in UTF-8, a prompt a line",
                remedy="correct the path",
            ) from error
        given = [*given, *(line for line in lines if line.strip())]
    if not given and not samples:
        raise DataError(
            "no prompts: none were given, and the run's recipe has no sample_prompts",
            rule="compare needs at least one prompt",
            remedy='burnish compare RUN "your prompt", or --file prompts.txt',
        )
    return list(given) or list(samples)


def _described(answer: Answer) -> dict[str, str]:
    return {"text": answer.text, "finish_reason": answer.finish_reason}


def _ending(answer: Answer) -> str:
    return "stopped" if answer.finish_reason == "stop" else "ran on"
