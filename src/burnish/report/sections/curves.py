"""How learning went: the loss of each update and of the rows kept aside, by source where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from burnish.report.collect import Run
from burnish.report.figure import line_figure
from burnish.report.lines import Chart, Line
from burnish.report.markup import Html, folded, tag
from burnish.report.story import Section, colour_of, of_run, section
from burnish.report.values import deep, mappings, number, text
from burnish.report.words import decimal, percent

MAX_POINTS = 320
HELD_OUT = 1


def curves(runs: Sequence[Run]) -> Section | None:
    """The section."""
    several = [figure for run in runs for figure in by_source(runs, run)]
    parts = [
        losses(runs),
        tag("div", accuracy(runs), norms(runs), class_="pair"),
        tag("div", *several, class_="pair") if several else Html(),
        folded("The learning rate", tag("div", rates(runs), class_="pair")),
    ]
    if not any(points_of(run.steps) or points_of(run.evals) for run in runs):
        return None
    return section("curves", "How it learnt", finding(runs), parts)


def finding(runs: Sequence[Run]) -> str:
    """The first and the last loss in words."""
    told = [sentence for run in runs if (sentence := _finding(runs, run))]
    return "\n".join(told) or "The losses of a run that has not been evaluated yet."


def _finding(runs: Sequence[Run], run: Run) -> str:
    who = "" if len(runs) == 1 else f"{run.name}: "
    held = points_of(run.evals)
    if len(held) > 1:
        best = min(held, key=lambda point: point[1])
        turned = held[-1][1] > best[1] * 1.05 and best[0] < held[-1][0]
        after = (
            f"; it was lowest at update {best[0]:,.0f} ({decimal(best[1])}) and rose after that"
            if turned
            else ""
        )
        ends = f"{_moved(held)} {decimal(held[0][1])} to {decimal(held[-1][1])}"
        return f"{who}On rows it never learnt from, the loss {ends}{after}."
    steps = points_of(run.steps)
    if not steps:
        return ""
    ends = f"{_moved(smooth(steps))} {decimal(steps[0][1])} to {decimal(smooth(steps)[-1][1])}"
    return f"{who}The loss {ends}; no rows were kept aside to check it on."


def _moved(points: Sequence[tuple[float, float]]) -> str:
    return "fell from" if points[-1][1] < points[0][1] else "went from"


def points_of(lines: Sequence[dict[str, Any]], *keys: str) -> list[tuple[float, float]]:
    """(step, value) where both are numbers; the loss unless other keys are named."""
    pairs = ((number(line.get("step")), number(deep(line, *(keys or ("loss",))))) for line in lines)
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, the last one kept."""
    every = -(-len(points) // MAX_POINTS) or 1
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The running median over a thirtieth of the run, at a few hundred points: spikes hardly move it."""
    half = max(1, len(points) // 60)
    places = {point: at for at, point in enumerate(points)}
    kept = ((point, places[point]) for point in thin(points))
    return [(x, median(y for _, y in points[max(0, at - half) : at + half + 1])) for (x, _), at in kept]


def losses(runs: Sequence[Run]) -> Html:
    """Every run's losses on one chart."""
    lines: list[Line] = []
    for run in runs:
        colour = colour_of(runs, run)
        steps, held = points_of(run.steps), points_of(run.evals)
        if len(runs) == 1:
            lines.append(Line("each update", thin(steps), colour, faint=True))
        lines.append(Line(of_run(runs, run, "training"), thin(smooth(steps)), colour, dashed=len(runs) > 1))
        other = HELD_OUT if len(runs) == 1 else colour
        lines.append(Line(of_run(runs, run, "held out"), held, other, dots=True))
    words = (
        "The mean surprise (-ln p) of graded tokens: of each update, and of rows that training never sees."
    )
    chart = Chart(lines, "update", "loss, nats per token")
    return line_figure("Loss", words, chart, _rows(runs), _head(runs))


def _head(runs: Sequence[Run]) -> list[str]:
    return ["update", *(of_run(runs, run, kind) for run in runs for kind in ("training", "held out"))]


def _rows(runs: Sequence[Run]) -> list[list[str]]:
    columns = [dict(points_of(lines)) for run in runs for lines in (run.steps, run.evals)]
    steps = sorted({step for column in columns for step in column})
    return [[f"{step:,.0f}", *(decimal(column.get(step), 4) for column in columns)] for step in steps]


def accuracy(runs: Sequence[Run]) -> Html:
    """The share of held-out graded tokens that are the model's first choice."""
    found = {of_run(runs, run, "held out"): points_of(run.evals, "accuracy") for run in runs}
    colours = [HELD_OUT if len(runs) == 1 else colour_of(runs, run) for run in runs]
    lines = [
        Line(name, points, colour, dots=True)
        for (name, points), colour in zip(found.items(), colours, strict=False)
    ]
    rows = [[name, f"{x:,.0f}", percent(y)] for name, points in found.items() for x, y in points]
    words = "Graded tokens of held-out rows that the model would have chosen itself."
    chart = Chart(lines, "update", "first choice right", percent=True)
    return line_figure("Tokens right at once", words, chart, rows, ("line", "update", "right"), half=True)


def rates(runs: Sequence[Run]) -> Html:
    """The learning rate over the run."""
    return _one(runs, "learning_rate", "Learning rate", "How fast the weights were moved.", "learning rate")


def norms(runs: Sequence[Run]) -> Html:
    """The length of the gradient over the run."""
    return _one(
        runs, "grad_norm", "Gradient", "How strongly each update pulled; spikes are unusual rows.", "norm"
    )


def _one(runs: Sequence[Run], key: str, title: str, words: str, name: str) -> Html:
    found = [(run, points_of(run.steps, key)) for run in runs]
    lines = [Line(of_run(runs, run, ""), thin(points), colour_of(runs, run)) for run, points in found]
    rows = [[run.name, f"{x:,.0f}", decimal(y)] for run, points in found for x, y in points]
    chart = Chart(lines, "update", name, log_y=None if key == "grad_norm" else False)
    return line_figure(title, words, chart, rows, ("run", "update", name), half=True)


def by_source(runs: Sequence[Run], run: Run) -> list[Html]:
    """Held-out loss of each source, and training loss of each source, where there are several."""
    figures = []
    names = {text(source.get("source")): text(source.get("name")) for source in _sources(run)}
    for title, lines, known in (
        ("Held-out loss by source", run.evals, run.sources()),
        ("Training loss by source", run.steps, names),
    ):
        keys = sorted({key for line in lines for key in _by_source(line)}, key=lambda key: (len(key), key))[
            :8
        ]
        if len(keys) < 2:
            continue
        drawn, rows = [], []
        for place, key in enumerate(keys):
            points = points_of(lines, "source_loss", key)
            name = known.get(key) or f"source {key}"
            shown = thin(smooth(points)) if lines is run.steps else points
            drawn.append(Line(name, shown, place, dots=lines is run.evals))
            rows += [[name, f"{x:,.0f}", decimal(y, 4)] for x, y in points]
        words = "What is learnt last, and what gets worse while the mean gets better."
        chart = Chart(drawn, "update", "loss, nats per token")
        figures.append(
            line_figure(of_run(runs, run, title), words, chart, rows, ("source", "update", "loss"), half=True)
        )
    return figures


def _sources(run: Run) -> list[dict[str, Any]]:
    return mappings(run.plan.get("sources"))


def _by_source(line: dict[str, Any]) -> list[str]:
    found = line.get("source_loss")
    return list(found) if isinstance(found, dict) else []
