"""`burnish compare RUN`: the base model and the tuned one, side by side on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli.chat import MaxNewTokens, Seed, Temperature
from burnish.cli.output import Output
from burnish.errors import DataError
from burnish.models.assistant import DEFAULT_NEW_TOKENS, DEFAULT_TEMPERATURE, Answer, load_assistant
from burnish.models.tokenizer import Prompt
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe
from burnish.training.directory import open_run


def command(
    run: Annotated[Path, typer.Argument(help="A finished run directory.", metavar="RUN")],
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts; none: the recipe's sample prompts.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Text file with a prompt a line.")] = None,
    max_new_tokens: MaxNewTokens = DEFAULT_NEW_TOKENS,
    temperature: Temperature = DEFAULT_TEMPERATURE,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a prompt.")] = False,
) -> None:
    """Ask base and tuned model the same; the base without a chat template is given the prompt as plain text."""
    prepare_process()
    recipe = load_recipe(open_run(run).path / "resolved.yaml", []).recipe
    asked = _prompts(prompts or [], file, recipe.sample_prompts)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    base = load_assistant(recipe.model, chat_template=recipe.chat_template).answer(asked, **settings)
    tuned = load_assistant(str(run)).answer(asked, **settings)
    output = Output(as_json=as_json)
    for prompt, before, after in zip(asked, base, tuned, strict=True):
        output.emit({"prompt": prompt, "base": _described(before), "tuned": _described(after)})
        if not as_json:
            output.say(f"\n{prompt}", style="bold")
            output.table(
                ("", "", ""), [("base", _ending(before), before.text), ("tuned", _ending(after), after.text)]
            )


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
