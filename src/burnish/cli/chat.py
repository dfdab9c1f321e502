"""`burnish chat RUN|MODEL`: ask a model, at a prompt or from a file of messages."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from burnish.cli.output import Output, printable
from burnish.data.messages import read_messages as parse_messages
from burnish.data.reject import ConversionError
from burnish.errors import DataError
from burnish.models.assistant import DEFAULT_NEW_TOKENS, DEFAULT_TEMPERATURE, Assistant, load_assistant
from burnish.parallel.runtime import prepare_process
from burnish.types import Message

ModelName = Annotated[
    str, typer.Argument(help="A run directory, a model directory, a hub id or `marble`.", metavar="RUN|MODEL")
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy: the likeliest token each time.")]
Seed = Annotated[int, typer.Option(help="Seed of the draws where the temperature is above 0.")]
AdapterPath = Annotated[str | None, typer.Option(help="An adapter directory in PEFT's format, put on MODEL.")]


def command(
    model: ModelName,
    messages: Annotated[
        Path | None, typer.Option(help="JSON file with a list of messages, or an object with `messages`.")
    ] = None,
    max_new_tokens: MaxNewTokens = DEFAULT_NEW_TOKENS,
    temperature: Temperature = DEFAULT_TEMPERATURE,
    seed: Seed = 0,
    adapter: AdapterPath = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer and its ids as one JSON line.")
    ] = False,
) -> None:
    """Chat with a model; with --messages, answer once and end."""
    prepare_process()
    output = Output(as_json=as_json)
    asked = read_messages(messages) if messages is not None else None
    assistant = load_assistant(model, adapter=adapter)
    if assistant.tokenizer.template is None:
        output.warn(f"{model} has no chat template: it is a base model, and is given plain text to continue")
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    if asked is not None:
        answer = assistant.answer([asked], **settings)[0]
        output.emit(asdict(answer))
        if not as_json:
            output.say(answer.text)
        return
    _converse(assistant, output, settings)


def read_messages(path: Path) -> list[Message]:
    """A conversation so far, from a JSON file; DataError where it is not one."""
    try:
        value = orjson.loads(path.read_bytes())
        return parse_messages(value["messages"] if isinstance(value, dict) and "messages" in value else value)
    except (OSError, orjson.JSONDecodeError, ConversionError) as error:
        raise DataError(
            f"{path}: {error}",
            rule="--messages names a JSON file: a list of {role, content}, or an object with `messages`",
            remedy='write, say, [{"role": "user", "content": "Hello"}]',
        ) from error


def _converse(assistant: Assistant, output: Output, settings: dict[str, Any]) -> None:
    """Read lines until the end of input; each answer sees all that was said before."""
    history: list[Message] = []
    output.say("an empty line or Ctrl-D ends the conversation", style="dim")
    while True:
        try:
            asked = input("you> ")
        except EOFError:
            return
        if not asked.strip():
            return
        history.append({"role": "user", "content": asked})
        answer = assistant.answer([history], **settings)[0]
        ended = "" if answer.finish_reason == "stop" else " [cut at --max-new-tokens]"
        output.say(f"model> {printable(answer.text)}{ended}")
        history.append({"role": "assistant", "content": answer.text})
