"""What learning cost: drift from the base on probes of general ability, against the budget and what was gained."""

from __future__ import annotations

from collections.abc import Sequence

from burnish.report.collect import Run
from burnish.report.figure import line_figure
from burnish.report.lines import Chart, Line
from burnish.report.markup import Html, bullets, join, tag
from burnish.report.story import Section, colour_of, of_run, section
from burnish.report.values import number, text
from burnish.report.words import decimal, signed

ACTS = {
    "warn": "a warning was given",
    "replay": "more general text was mixed in",
    "stop": "the run was stopped",
    "best": "the best checkpoint was chosen",
}


def forgetting(runs: Sequence[Run]) -> Section | None:
    """The section."""
    if not any(run.forgetting for run in runs):
        return None
    parts = [drift(runs), trade(runs), acts(runs)]
    return section("forgetting", "What it cost the model", finding(runs), parts)


def probes(run: Run) -> list[str]:
    """The names of the probes."""
    return list(dict.fromkeys(text(line.get("probe"), "probe") for line in run.forgetting))


def measures(run: Run, probe: str) -> list[tuple[float, float, float | None, float | None]]:
    """(step, drift, low, high) of one probe, by step."""
    found = [
        (step, moved, number(line.get("low")), number(line.get("high")))
        for line in run.forgetting
        if text(line.get("probe"), "probe") == probe
        and (step := number(line.get("step"))) is not None
        and (moved := number(line.get("drift"))) is not None
    ]
    return sorted(found, key=lambda each: each[0])


def finding(runs: Sequence[Run]) -> str:
    """The worst drift at the end against its budget."""
    told = []
    for run in runs:
        ends = [(measures(run, probe)[-1], probe) for probe in probes(run) if measures(run, probe)]
        if not ends:
            continue
        (_, moved, low, high), probe = max(ends, key=lambda each: each[0][1])
        sure = f" ({signed(low)} to {signed(high)})" if low is not None and high is not None else ""
        who = "" if len(runs) == 1 else f"{run.name}: "
        told.append(
            f"{who}On {probe}, the loss moved by {signed(moved)}{sure} nats a token{against(run, probe)}."
        )
    return "\n".join(told)


def against(run: Run, probe: str) -> str:
    """The last measure of a probe against its budget: over it is what the guard calls so, beyond chance."""
    lines = [line for line in run.forgetting if text(line.get("probe"), "probe") == probe]
    limit, moved = (number(lines[-1].get(key)) for key in ("budget", "drift")) if lines else (None, None)
    if limit is None or moved is None:
        return ""
    if lines[-1].get("breached") is True:
        return f", over the budget of {decimal(limit)}"
    chance = ", if only by what may be chance" if moved > limit else ""
    return f", {'above' if moved > limit else 'within'} the budget of {decimal(limit)}{chance}"


def is_over(run: Run) -> bool:
    """Whether the guard says of any probe, the last time it looked, that its budget is exceeded."""
    last = {text(line.get("probe"), "probe"): line for line in run.forgetting}
    return any(line.get("breached") is True for line in last.values())


def budget(run: Run) -> float | None:
    """The drift that the recipe allows, of the first probe that has a budget."""
    return next((found for line in run.forgetting if (found := number(line.get("budget"))) is not None), None)


def drift(runs: Sequence[Run]) -> Html:
    """Drift over the run with its interval, one line for each probe."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for run in runs:
        for place, probe in enumerate(probes(run)):
            found = measures(run, probe)
            low = [each for _, _, each, _ in found if each is not None]
            high = [each for _, _, _, each in found if each is not None]
            sure = len(low) == len(high) == len(found)
            lines.append(
                Line(
                    of_run(runs, run, probe),
                    [(step, moved) for step, moved, _, _ in found],
                    len(lines) if len(runs) == 1 else colour_of(runs, run),
                    low if sure else (),
                    high if sure else (),
                    dots=True,
                    dashed=len(runs) > 1 and place > 0,
                )
            )
            rows += [
                [of_run(runs, run, probe), f"{step:,.0f}", signed(moved), f"{signed(a)} to {signed(b)}"]
                for step, moved, a, b in found
            ]
    limits = sorted({limit for run in runs if (limit := budget(run)) is not None})
    rules = [(limit, f"budget {decimal(limit)}") for limit in limits]
    words = "Loss on texts that have nothing to do with the lessons, minus what the base had: above zero is forgotten."
    chart = Chart(lines, "update", "drift, nats per token", rules, log_y=False)
    return line_figure(
        "Drift from the base", words, chart, rows, ("probe", "update", "drift", "95% interval")
    )


def trade(runs: Sequence[Run]) -> Html:
    """The way of each run through gain and loss: right is forgotten, up is gained."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for run in runs:
        for place, probe in enumerate(probes(run)):
            found = sorted(
                (step, moved, task)
                for line in run.forgetting
                if text(line.get("probe"), "probe") == probe
                and (step := number(line.get("step"))) is not None
                and (moved := number(line.get("drift"))) is not None
                and (task := number(line.get("task_loss"))) is not None
            )
            if len(found) < 2:
                continue
            colour = len(lines) if len(runs) == 1 else colour_of(runs, run)
            way = [(moved, found[0][2] - task) for _, moved, task in found]
            lines.append(
                Line(of_run(runs, run, probe), way, colour, dots=True, dashed=len(runs) > 1 and place > 0)
            )
            rows += [
                [of_run(runs, run, probe), f"{step:,.0f}", signed(moved), signed(found[0][2] - task)]
                for step, moved, task in found
            ]
    words = "Each dot is a measure in the order of the run: up is more learnt, right is more forgotten."
    chart = Chart(lines, "general ability lost (drift)", "gained on the task, nats per token", log_y=False)
    head = ("probe", "update", "lost", "gained")
    return line_figure("Gain against loss", words, chart, rows, head)


def acts(runs: Sequence[Run]) -> Html:
    """What the guard did about it: the same act for the same reason is told once."""
    told = []
    for run in runs:
        steps: dict[tuple[str, str, str], list[str]] = {}
        for line in run.forgetting:
            if text(line.get("act")):
                why = (text(line.get("probe")), text(line.get("act")), text(line.get("detail")))
                steps.setdefault(why, []).append(text(line.get("step"), "?"))
        for (probe, act, detail), at in steps.items():
            who = f"{run.name}: " if len(runs) > 1 else ""
            when = f"update {at[0]}" if len(at) == 1 else f"{len(at)} times from update {at[0]} to {at[-1]}"
            told.append(f"{who}{when}, {probe}: {ACTS.get(act, act)}. {detail}")
    return join([tag("h3", "What the guard did"), bullets(told[:60])]) if told else Html()
