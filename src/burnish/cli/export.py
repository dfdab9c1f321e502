"""`burnish export RUN --to FORM --out DIR`: a finished run in a form that others load, proved to be what it was."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from burnish.cli.output import Output
from burnish.export.export import Exported, export
from burnish.export.forms import Form, Order, Quantization
from burnish.parallel.runtime import prepare_process
from burnish.recipe.choices import DType


def command(
    run: Annotated[Path, typer.Argument(help="A finished run directory.", metavar="RUN")],
    to: Annotated[Form, typer.Option("--to", help="The form to export in.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to make; it must not hold anything yet.", metavar="DIR")
    ],
    dtype: Annotated[
        DType | None, typer.Option(help="Of the merged weights; default: what the run's own weights have.")
    ] = None,
    quantize: Annotated[
        Quantization, typer.Option(help="How a GGUF file stores its matrices.")
    ] = Quantization.F16,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on stdout.")] = False,
) -> None:
    """Export a run; a process with transformers alone opens it cold, and it is kept only if it is what was trained."""
    prepare_process()
    result = export(Order(run, to, out, dtype, quantize))
    output = Output(as_json=as_json)
    output.emit(result.as_dict())
    report(result, output)


def report(result: Exported, output: Output) -> None:
    """Say what came out and how it is used."""
    output.say(
        f"\n{result.out}: {result.form.value}, {len(result.checks)} of {len(result.checks)} checks held (parity.json)"
    )
    for check in result.checks:
        saw = check["saw"]
        if isinstance(saw, dict) and "kl" in saw:
            numbers = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in saw.items())
            output.say(f"  {check['check']}: {numbers}")
    for remark in result.remarks:
        output.say(f"  {remark}")
    if result.command:
        output.say(f"  {shlex.join(result.command)}")
