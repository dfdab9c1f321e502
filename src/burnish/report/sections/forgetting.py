"""What learning cost: drift from the base on probes of general ability, against the budget and what was gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from burnish.report.collect import Run
from burnish.report.figure import line_figure
from burnish.report.lines import Chart, Line
from burnish.report.markup import Html, bullets, join, tag
from burnish.report.story import Section, colour_of, section
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
    parts = [by_probe(drift, runs), by_probe(trade, runs), acts(runs)]
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


Drawn = Callable[[Sequence[Run], Sequence[str]], Html]


def by_probe(draw: Drawn, runs: Sequence[Run]) -> Html:
    """Of one run a chart of all probes; of several a chart for each probe, on which the runs are compared."""
    names = list(dict.fromkeys(probe for run in runs for probe in probes(run)))
    if len(runs) == 1:
        return draw(runs, names)
    return tag("div", *(draw(runs, [name]) for name in names), class_="pair")


def _titled(words: str, runs: Sequence[Run], names: Sequence[str]) -> str:
    return words if len(runs) == 1 else f"{words}: {names[0]}"


def drift(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """Drift over the run with its interval, one line for each probe."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for run in runs:
        for probe in (each for each in probes(run) if each in names):
            found = measures(run, probe)
            low = [each for _, _, each, _ in found if each is not None]
            high = [each for _, _, _, each in found if each is not None]
            sure = len(low) == len(high) == len(found)
            way = [(step, moved) for step, moved, _, _ in found]
            colour = len(lines) if len(runs) == 1 else colour_of(runs, run)
            name = probe if len(runs) == 1 else run.name
            lines.append(Line(name, way, colour, low if sure else (), high if sure else (), dots=True))
            rows += [
                [name, f"{step:,.0f}", signed(moved), f"{signed(a)} to {signed(b)}"]
                for step, moved, a, b in found
            ]
    limits = sorted(
        {
            limit
            for run in runs
            for line in run.forgetting
            if text(line.get("probe"), "probe") in names and (limit := number(line.get("budget"))) is not None
        }
    )
    rules = [(limit, f"budget {decimal(limit)}") for limit in limits]
    words = "Loss on texts that have nothing to do with the lessons, minus what the base had: above zero is forgotten."
    chart = Chart(lines, "update", "drift, nats per token", rules, log_y=False, named=len(runs) > 1)
    head = ("probe" if len(runs) == 1 else "run", "update", "drift", "95% interval")
    title = _titled("Drift from the base", runs, names)
    return line_figure(title, words, chart, rows, head, half=len(runs) > 1)


def trade(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """The way of each run through gain and loss: right is forgotten, up is gained."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for run in runs:
        for probe in (each for each in probes(run) if each in names):
            found = _traded(run, probe)
            if len(found) < 2:
                continue
            colour = len(lines) if len(runs) == 1 else colour_of(runs, run)
            name = probe if len(runs) == 1 else run.name
            lines.append(Line(name, [(lost, gained) for _, lost, gained in found], colour, dots=True))
            rows += [[name, f"{step:,.0f}", signed(lost), signed(gained)] for step, lost, gained in found]
    words = "Each dot is a measure in the order of the run: up is more learnt, right is more forgotten."
    chart = Chart(
        lines,
        "general ability lost (drift)",
        "gained on the task, nats per token",
        log_y=False,
        named=len(runs) > 1,
    )
    head = ("probe" if len(runs) == 1 else "run", "update", "lost", "gained")
    title = _titled("Gain against loss", runs, names)
    return line_figure(title, words, chart, rows, head, half=len(runs) > 1)


def _traded(run: Run, probe: str) -> list[tuple[float, float, float]]:
    """(step, lost, gained since the first measure) of one probe."""
    found = sorted(
        (step, moved, task)
        for line in run.forgetting
        if text(line.get("probe"), "probe") == probe
        and (step := number(line.get("step"))) is not None
        and (moved := number(line.get("drift"))) is not None
        and (task := number(line.get("task_loss"))) is not None
    )
    return [(step, moved, found[0][2] - task) for step, moved, task in found]


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
