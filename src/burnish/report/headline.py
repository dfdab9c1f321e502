"""The top of the page: what this is, the figures that a board asks for, and what to be told before believing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from burnish.report.collect import Run
from burnish.report.markup import Html, bullets, folded, join, table, tag
from burnish.report.scores import difference, main_metric, sheets
from burnish.report.sections.cost import money, peak, seconds_of
from burnish.report.sections.curves import points_of
from burnish.report.sections.evaluations import words_of
from burnish.report.sections.forgetting import budget, is_over, measures, probes
from burnish.report.story import colour_of
from burnish.report.values import deep, mapping, number, text
from burnish.report.words import UNKNOWN, count, decimal, duration, listed, memory, percent, signed

MAX_WARNINGS = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the summary: its name, itself, and what is to be known with it."""

    name: str
    value: str
    more: str = ""
    alarm: bool = False


def title(runs: Sequence[Run]) -> str:
    """The page's title."""
    if len(runs) > 1:
        return (
            f"{listed([run.name for run in runs[:4]])}{' and others' if len(runs) > 4 else ''}, side by side"
        )
    return runs[0].name


def figures(run: Run, *, price: float | None = None, currency: str = "") -> list[Figure]:
    """What can be said of a run in a few figures."""
    found = [_loss(run), *_scores(run), _forgotten(run), _superficial(run)]
    taken, most = seconds_of(run), peak(run)
    if taken is not None:
        paid = money(run, price, currency)
        found.append(Figure("Computing", duration(taken), paid or count(run.num_steps, "update")))
    if most is not None:
        expected = number(deep(run.summary, "reckoning", "memory", "expected"))
        found.append(
            Figure("Memory", memory(most), f"{memory(expected)} expected" if expected else "at most")
        )
    return [figure for figure in found if figure is not None]


def _loss(run: Run) -> Figure | None:
    for name, lines in (("Held-out loss", run.evals), ("Training loss", run.steps)):
        points = points_of(lines)
        if len(points) > 1:
            best = min(points, key=lambda point: point[1])
            more = (
                f"best {decimal(best[1])} at update {best[0]:,.0f}"
                if lines is run.evals
                else f"{count(run.num_steps)} updates"
            )
            return Figure(name, f"{decimal(points[0][1])} → {decimal(points[-1][1])}", more)
    return None


def _scores(run: Run) -> list[Figure]:
    found = []
    for sheet in sheets([run])[:2]:
        name = main_metric(sheet)
        if name is None:
            continue
        first, last = sheet.metrics[name][0], sheet.metrics[name][-1]
        write = percent if last.is_share else decimal
        shown = write(last.value) if first is last else f"{write(first.value)} → {write(last.value)}"
        more = difference(first, last) if first is not last and first.model == "base" else last.words
        found.append(Figure(f"{words_of(name)}, {sheet.dataset}", shown, more))
    return found


def _forgotten(run: Run) -> Figure | None:
    ends = [measures(run, probe)[-1] for probe in probes(run) if measures(run, probe)]
    if not ends:
        return None
    worst = max(moved for _, moved, _, _ in ends)
    limit = budget(run)
    more = f"budget {decimal(limit)}" if limit is not None else "nats a token"
    return Figure("Forgotten", signed(worst), more, is_over(run))


def _superficial(run: Run) -> Figure | None:
    top1 = number(deep(run.sharpening[-1], "groups", "all", "base_top1")) if run.sharpening else None
    return (
        Figure("Known before", percent(top1), "of taught tokens: the base's first choice")
        if top1 is not None
        else None
    )


def cards(runs: Sequence[Run], *, price: float | None = None, currency: str = "") -> Html:
    """The figures: as cards of one run, as a table of several."""
    found = {run.name: figures(run, price=price, currency=currency) for run in runs}
    if len(runs) == 1:
        items = [
            tag(
                "li",
                tag("span", each.name, class_="name"),
                tag("strong", each.value, class_="bad" if each.alarm else None),
                tag("span", each.more, class_="more"),
            )
            for each in found[runs[0].name]
        ]
        return tag("ul", *items, class_=f"cards of-{len(items)}") if items else Html()
    names = list(dict.fromkeys(each.name for shown in found.values() for each in shown))
    head = [
        "",
        *(
            join([tag("i", class_=f"key c{colour_of(runs, run)}", aria_hidden="true"), " ", run.name])
            for run in runs
        ),
    ]
    rows = [
        [
            name,
            *(next((each.value for each in found[run.name] if each.name == name), UNKNOWN) for run in runs),
        ]
        for name in names
    ]
    return tag("div", table(head, rows), class_="summary")


def warnings(runs: Sequence[Run]) -> Html:
    """What went wrong or was out of the ordinary; the reader should know it before the charts."""
    told = [(run, words) for run in runs for words in _warnings(run)]
    if not told:
        return Html()
    lines = [words if len(runs) == 1 else f"{run.name}: {words}" for run, words in told]
    rest = (
        folded(f"{len(lines) - MAX_WARNINGS} more", bullets(lines[MAX_WARNINGS:]))
        if len(lines) > MAX_WARNINGS
        else ""
    )
    head = tag("h2", "Before you read on")
    return tag(
        "aside", head, bullets(lines[:MAX_WARNINGS]), rest, class_="warnings", aria_label="what to know"
    )


def _warnings(run: Run) -> list[str]:
    told = list(run.notes)
    if run.state in ("interrupted", "running"):
        of = number(run.plan.get("steps"))
        told.append(
            f"The run is not finished ({run.state}): {count(run.num_steps)} of {count(of)} updates were made."
        )
    for certificate in run.certificates:
        told += [
            f"The certificate names a broken rule: {key}." for key in mapping(certificate.get("violations"))
        ]
    kinds = Counter(
        text(event.get("why")).split(":")[0] for event in run.events if event.get("event") == "warned"
    )
    told += [
        f"While it trained: {kind}{f' ({many} times)' if many > 1 else ''}."
        for kind, many in kinds.items()
        if kind and not (kind == "forgetting" and run.forgetting)
    ]
    skipped = sum(event.get("event") == "skipped" for event in run.events)
    if skipped:
        told.append(
            f"{count(skipped, 'batch', 'batches')} had no finite loss or gradient and were passed over."
        )
    for evaluation in run.evaluations:
        rows = number(deep(evaluation, "contamination", "rows"))
        if rows and evaluation.get("model") != "base":
            told.append(
                f"{count(rows, 'question')} of {text(evaluation.get('dataset'))} are in part in the training data."
            )
    over = {text(line.get("probe")) for line in run.forgetting if line.get("breached") is True}
    told += [f"The budget for forgetting was exceeded on {probe}." for probe in sorted(over)]
    return list(dict.fromkeys(told))
