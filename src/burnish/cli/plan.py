"""`burnish plan RECIPE`: what a run will compute, hold and take, before it is started."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from burnish.cli.output import Output
from burnish.cli.progress import RowsDone
from burnish.cli.train import AsJson, Overrides, RecipePath
from burnish.errors import UsageError
from burnish.recipe.load import load_recipe
from burnish.training.cluster import Cluster, accelerator_named, read_cluster
from burnish.training.forecast import GB
from burnish.training.planning import PlanReport, plan_stages


def command(
    recipe: RecipePath,
    overrides: Overrides = None,
    hardware: Annotated[
        str | None,
        typer.Option(help="Forecast for an accelerator that is not at hand: A100-80G, H100, 4090, ..."),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="How many of them; or all in one: 8xH100-80G, on two nodes 2x8xH100-80G."),
    ] = None,
    measure: Annotated[bool, typer.Option(help="Take two steps of the real model on this machine.")] = True,
    as_json: AsJson = False,
) -> None:
    """Say what a run takes: tokens, packs, memory by part, time; and what to change where it does not fit."""
    output = Output(as_json=as_json)
    rows = RowsDone(Console(stderr=True))
    try:
        reports = plan_stages(
            load_recipe(recipe, overrides or []),
            cluster=_cluster(hardware, devices),
            measure=measure,
            progress=rows.show,
        )
    finally:
        rows.close()
    output.emit(_as_dict(reports))
    for name, report in {} if as_json else reports.items():
        if name:
            output.say(f"\nstage {name}", style="bold")
        _print(report, output)
    if len(reports) > 1 and not as_json:
        output.say(f"\nall stages: {_duration(_seconds(reports))}, at most {_needed(reports) / GB:,.2f} GB")


def _as_dict(reports: dict[str, PlanReport]) -> dict[str, Any]:
    """A recipe without stages is told as its only one."""
    told = {name: report.as_dict() for name, report in reports.items()}
    if [*told] == [""]:
        return told[""]
    return {"seconds": _seconds(reports), "needed_bytes": round(_needed(reports)), "stages": told}


def _seconds(reports: dict[str, PlanReport]) -> float:
    return sum(report.forecast.seconds for report in reports.values())


def _needed(reports: dict[str, PlanReport]) -> float:
    return max(report.forecast.needed for report in reports.values())


def _cluster(hardware: str | None, devices: str | None) -> Cluster | None:
    """What is asked about: devices by count and name, either said apart or together; None for this machine."""
    if hardware is None:
        return None if devices is None else read_cluster(devices)
    if devices is not None and not devices.isdigit():
        raise UsageError(
            f"--hardware {hardware} --devices {devices}",
            rule="a name is said once",
            remedy=f"burnish plan RECIPE --devices {devices}",
        )
    return read_cluster(f"{devices or 1}x{accelerator_named(hardware).name}")


def _print(report: PlanReport, output: Output) -> None:
    forecast, memory = report.forecast, report.forecast.memory
    output.say(
        f"{forecast.anatomy.parameters:,} parameters, {forecast.trained:,} of them trained; "
        f"{forecast.work.steps:,} updates"
    )
    for line in report.survey.describe(report.pack_tokens):
        output.say(line)
    parts = {
        "weights": memory.weights,
        "fp32 masters": memory.masters,
        "gradients": memory.gradients,
        "optimiser": memory.optimizer,
        "interpreter and libraries": memory.process,
        f"activations ({report.pack_tokens:,} tokens a pass)": memory.activations,
        "logits (one chunk)": memory.logits,
        "all, with a tenth in reserve": memory.total,
    }
    output.table(("memory", "GB"), [(name, f"{size / GB:,.2f}") for name, size in parts.items()])
    if forecast.measured is not None:
        step = forecast.measured
        output.say(
            f"measured: a step of {step.tokens:,} tokens took {step.seconds:.2f} s "
            f"({step.tokens / step.seconds:,.0f} tokens/s, {forecast.rate / 1e9:,.0f} GFLOP/s), "
            f"and the process held {step.peak_bytes / GB:,.2f} GB at most"
        )
    basis = "" if forecast.measured else f" if training reaches {forecast.share_of_peak}"
    output.say(
        f"on {_devices(forecast.device, forecast.devices)}: {forecast.needed / GB:,.2f} of "
        f"{forecast.device_memory / GB:,.0f} GB, {_duration(forecast.seconds)}{basis}"
    )
    _print_ways(report, output)
    for change in report.changes:
        output.say(f"  {change}", style="yellow")


def _print_ways(report: PlanReport, output: Output) -> None:
    """The ways to share the run out over several devices, side by side."""
    if len(report.ways) < 2:
        return
    output.table(
        ("on these devices", "GB a device", "GB of a host", "s a step", ""),
        [
            (
                way.name,
                f"{way.forecast.memory.total / GB:,.1f}",
                f"{way.forecast.host / GB:,.0f}",
                f"{way.forecast.step:,.2f}",
                "fits" if way.fits else "",
            )
            for way in report.ways
        ],
    )
    output.say(
        "sending: devices of a node by their links, nodes by 400 Gbit/s for each device; what is gathered, and the "
        "ring, go on while layers are computed"
    )


def _devices(name: str, number: int) -> str:
    return name if number == 1 else f"each of {number} {name}"


def _duration(seconds: float) -> str:
    """Seconds as people say them: "1 h 12 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
