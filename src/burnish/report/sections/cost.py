"""What it took: time and memory as expected and as measured, speed, and money where a price is given."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from burnish.report.collect import Run
from burnish.report.figure import bar_figure, keys, line_figure
from burnish.report.lines import Chart, Line
from burnish.report.markup import Html, join, table, tag
from burnish.report.sections.curves import smooth, thin
from burnish.report.story import Section, colour_of, note, of_run, run_heading, section
from burnish.report.values import deep, mapping, number
from burnish.report.words import UNKNOWN, count, decimal, duration, large, memory, percent

PARTS = {
    "weights": "weights",
    "masters": "fp32 copies of what is trained",
    "gradients": "gradients",
    "optimizer": "the optimiser's memory",
    "activations": "activations",
    "logits": "logits",
    "process": "the process itself",
    "margin": "reserve",
}


def cost(runs: Sequence[Run], *, price: float | None = None, currency: str = "") -> Section | None:
    """The section; `price` is of one machine for one hour."""
    if not any(run.steps or run.summary for run in runs):
        return None
    bars = [part for run in runs if (drawn := held(run)) for part in (run_heading(runs, run), drawn)]
    parts = [figures(runs, price, currency), tag("div", speed(runs), memory_over(runs), class_="pair"), *bars]
    return section("cost", "What it took", finding(runs, price, currency), parts)


def seconds_of(run: Run) -> float | None:
    """Seconds of all updates; evaluations, checkpoints and start-up are not in it."""
    found = [taken for step in run.steps if (taken := number(step.get("seconds"))) is not None]
    return sum(found) if found else None


def money(run: Run, price: float | None, currency: str) -> str:
    """What the updates cost at a price for the hour."""
    taken = seconds_of(run)
    if taken is None or price is None:
        return ""
    amount = taken / 3600 * price
    return f"{amount:,.2f} {currency}".strip() if amount >= 0.01 else f"under 0.01 {currency}".strip()


def finding(runs: Sequence[Run], price: float | None, currency: str) -> str:
    """Time and memory of each run in a sentence."""
    told = []
    for run in runs:
        who = "" if len(runs) == 1 else f"{run.name}: "
        most = peak(run)
        paid = money(run, price, currency)
        words = f"{who}{duration(seconds_of(run))} of computing"
        told.append(
            words + (f", {memory(most)} at most" if most else "") + (f", {paid}" if paid else "") + "."
        )
    return "\n".join(told)


def peak(run: Run) -> float | None:
    """The most memory that was measured."""
    measured = number(deep(run.summary, "reckoning", "memory", "measured"))
    if measured is not None:
        return measured
    return max((size for step in run.steps if (size := number(step.get("memory_bytes")))), default=None)


def figures(runs: Sequence[Run], price: float | None, currency: str) -> Html:
    """Expected beside measured, and how fast, in one table."""
    rows: list[tuple[str, ...]] = []

    def add(name: str, values: Sequence[str]) -> None:
        if any(value and value != UNKNOWN for value in values):
            rows.append((name, *(value or UNKNOWN for value in values)))

    add("updates", [count(run.num_steps) for run in runs])
    add("time of all updates", [duration(seconds_of(run)) for run in runs])
    add("an update, the middle one", [duration(_median(run)) for run in runs])
    add("after the first few: expected", [duration(_reckoned(run, "seconds", "expected")) for run in runs])
    add("after the first few: measured", [duration(_reckoned(run, "seconds", "measured")) for run in runs])
    add("memory expected", [memory(_reckoned(run, "memory", "expected")) for run in runs])
    add("memory measured", [memory(peak(run)) for run in runs])
    add("expected against measured, memory", [_off(run, "memory") for run in runs])
    add("expected against measured, time", [_off(run, "seconds") for run in runs])
    add("tokens a second", [count(_rate(run, "tokens")) for run in runs])
    add("graded tokens a second", [count(_rate(run, "graded_tokens")) for run in runs])
    add("trained parameters", [large(number(run.plan.get("trainable_parameters"))) for run in runs])
    add("arithmetic, about", [_operations(run) for run in runs])
    if price is not None:
        add(
            f"cost at {decimal(price)} {currency}".strip() + " an hour",
            [money(run, price, currency) for run in runs],
        )
    if not rows:
        return Html()
    remark = note(
        "Time is that of the updates alone: start-up, evaluations, samples and checkpoints come on top."
    )
    return join([table(("", *(run.name for run in runs)), rows), remark])


def _reckoned(run: Run, what: str, which: str) -> float | None:
    return number(deep(run.summary, "reckoning", what, which))


def _off(run: Run, what: str) -> str:
    expected, measured = _reckoned(run, what, "expected"), _reckoned(run, what, "measured")
    if not expected or not measured:
        return ""
    off = expected / measured - 1
    return f"{percent(abs(off), digits=0)} too {'high' if off > 0 else 'low'}"


def _median(run: Run) -> float | None:
    found = [taken for step in run.steps if (taken := number(step.get("seconds"))) is not None]
    return median(found) if found else None


def _rate(run: Run, key: str) -> float | None:
    taken = seconds_of(run)
    tokens = sum(number(step.get(key)) or 0.0 for step in run.steps)
    return tokens / taken if taken and tokens else None


def _operations(run: Run) -> str:
    parameters = number(run.plan.get("parameters"))
    tokens = sum(number(step.get("tokens")) or 0.0 for step in run.steps)
    if not parameters or not tokens:
        return ""
    trained = number(run.plan.get("trainable_parameters")) or parameters
    # Forward and the way back go through all weights; the gradient of weights is of the trained ones alone.
    total = (4 * parameters + 2 * min(trained, parameters)) * tokens
    return f"{decimal(total / 1e12)} trillion operations"


def speed(runs: Sequence[Run]) -> Html:
    """Tokens a second over the run."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for run in runs:
        found = [
            (step, tokens / taken)
            for line in run.steps
            if (step := number(line.get("step"))) is not None
            and (tokens := number(line.get("tokens"))) is not None
            and (taken := number(line.get("seconds")))
            and taken > 0
        ]
        lines.append(Line(of_run(runs, run, ""), thin(smooth(found)), colour_of(runs, run)))
        rows += [[run.name, f"{x:,.0f}", count(y)] for x, y in found]
    chart = Chart(lines, "update", "tokens a second", log_y=False)
    words = "A steady line is a machine that nothing else disturbed."
    return line_figure("Speed", words, chart, rows, ("run", "update", "tokens a second"), half=True)


def memory_over(runs: Sequence[Run]) -> Html:
    """Memory over the run, against what was expected."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    rules: list[tuple[float, str]] = []
    for run in runs:
        found = [
            (step, size / 2**20)
            for line in run.steps
            if (step := number(line.get("step"))) is not None
            and (size := number(line.get("memory_bytes"))) is not None
        ]
        lines.append(Line(of_run(runs, run, ""), thin(found), colour_of(runs, run)))
        rows += [[run.name, f"{x:,.0f}", f"{y:,.0f}"] for x, y in found]
        expected = _reckoned(run, "memory", "expected")
        if expected is not None and len(runs) == 1:
            rules.append((expected / 2**20, "expected"))
    chart = Chart(lines, "update", "MiB", rules, log_y=False)
    words = "The most that was held up to each update, beside what was reckoned before the first."
    return line_figure("Memory", words, chart, rows, ("run", "update", "MiB"), half=True)


def held(run: Run) -> Html:
    """What the memory was expected to go to, and what was measured in all."""
    expected = mapping(deep(run.summary, "reckoning", "memory", "parts"))
    sizes = [(name, size) for name in expected if (size := number(expected[name])) and size > 0]
    most = peak(run)
    if not sizes or most is None:
        return Html()
    expected_in_all = _reckoned(run, "memory", "expected") or 0.0
    margin = expected_in_all - sum(size for _, size in sizes)
    sizes += [("margin", margin)] if margin > 0.005 * expected_in_all else []
    known = list(PARTS)
    kinds = {name: f"p{known.index(name) if name in known else 7}" for name, _ in sizes}
    total = sum(size for _, size in sizes)
    parts = [
        ("expected", [(kinds[name], size) for name, size in sizes], memory(total)),
        ("measured", [("whole", most)], memory(most)),
    ]
    rows = [[PARTS.get(name, name), memory(size), percent(size / total)] for name, size in sizes]
    names = keys([(f"{PARTS.get(name, name)}", int(kinds[name][1:]), "part") for name, _ in sizes])
    words = "Reckoned from shapes alone, before the first update."
    return bar_figure("Where memory goes", words, parts, rows, ("part", "expected", "share"), names)
