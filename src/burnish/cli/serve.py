"""`burnish serve RUN...`: the OpenAI API over runs and models, on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from burnish.cli.output import Output
from burnish.errors import UsageError
from burnish.parallel.runtime import prepare_process

DTYPES = ("auto", "float32", "bfloat16", "float16")


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Runs, adapter or model directories, hub ids or `marble`; several share one base.",
            metavar="RUN|MODEL...",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address; other than this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that requests bring; made on first use.")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Sequences computed together.")] = 8,
    queue: Annotated[int, typer.Option(min=0, max=4096, help="Requests that may wait; more get 429.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer a request may ask for.")] = 4096,
    dtype: Annotated[
        str, typer.Option(help="auto (float32 on a CPU, else the weights' own), float32, bfloat16, float16.")
    ] = "auto",
    drain_seconds: Annotated[int, typer.Option(min=0, help="How long SIGTERM waits for answers.")] = 60,
) -> None:
    """Serve runs and models with OpenAI's API: chat (streams, tools), completions, log-probabilities."""
    output = Output()
    _require_packages()
    if dtype not in DTYPES:
        raise UsageError(
            f"--dtype {dtype}", rule=f"a dtype is one of {', '.join(DTYPES)}", remedy="--dtype auto"
        )
    prepare_process()
    from burnish.serving.app import Desk, build_app  # after the check, for they import the extra's packages
    from burnish.serving.compute import Computer
    from burnish.serving.engine import Engine
    from burnish.serving.listen import bind, find_token, is_loopback, make_server
    from burnish.serving.roster import load_roster

    token = find_token(host, token_file)
    roster = load_roster(models, dtype=dtype)
    with Computer(roster, width=slots) as computer, Engine(computer) as engine:
        if computer.why_alone is not None:
            output.warn(f"sequences are computed one by one: {computer.why_alone}")
        desk = Desk(roster, engine, queue_length=queue, max_tokens=max_tokens)
        app = build_app(desk, token=token, any_host=not is_loopback(host))
        socket = bind(host, port)
        output.say(f"serving {', '.join(roster.by_id)} on http://{host}:{socket.getsockname()[1]}/v1")
        try:
            make_server(app, drain_seconds=drain_seconds).run(sockets=[socket])
        finally:
            desk.close()


def _require_packages() -> None:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} not installed",
            rule="`burnish serve` needs the packages of the extra `serve`",
            remedy="pip install 'burnish[serve]'",
        )
