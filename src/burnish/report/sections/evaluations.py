"""How well it does: every evaluation with its interval, against the base, with what the test and the data share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.report.collect import Run
from burnish.report.dots import Dot, DotChart, Row
from burnish.report.figure import dot_figure, keys
from burnish.report.markup import Html, folded, join, table, tag
from burnish.report.scores import Score, Sheet, difference, main_metric, score_of, sheets, verdict
from burnish.report.story import Section, note, section
from burnish.report.values import mapping, mappings, number, text
from burnish.report.words import UNKNOWN, count

MAX_SAMPLES = 20


def evaluations(runs: Sequence[Run]) -> Section | None:
    """The section."""
    found = sheets(runs)
    parts = [part for sheet in found for part in _sheet(sheet)]
    return section("evaluations", "How well it does", finding(found), parts)


def finding(found: Sequence[Sheet]) -> str:
    """The main metric of the first data set in words."""
    if not found:
        return ""
    sheet = found[0]
    name = main_metric(sheet)
    if name is None:
        return ""
    base, *others = sheet.metrics[name]
    if base.model != "base" or not others:
        return f"{words_of(name)} on {sheet.dataset}: {base.words}."
    told = [f"{other.words} for {other.model}" for other in others]
    return f"{words_of(name)} on {sheet.dataset}: {base.words} for the base, {', '.join(told)}."


def words_of(name: str) -> str:
    """A metric's name as words."""
    shown = name.replace("_", " ").strip()
    return shown[:1].upper() + shown[1:]


def _sheet(sheet: Sheet) -> list[Html]:
    rows = [
        Row(words_of(name), [Dot(s.model, s.value, s.low, s.high, s.words, s.colour) for s in scores])
        for name, scores in sheet.metrics.items()
        if scores[0].is_share
    ]
    head = tag("h3", sheet.dataset, class_="dataset")
    chart = Html()
    if rows:
        names = keys([(score.model, score.colour, "dotted") for score in _models(sheet)])
        words = "Each dot is a share of answers, each bar its 95% interval: what other questions like these may show."
        chart = dot_figure(f"On {sheet.dataset}", words, DotChart(rows), _table(sheet), _HEAD, names)
    numbers = Html() if rows and all(scores[0].is_share for scores in sheet.metrics.values()) else (
        table(_HEAD, _table(sheet, shares=False)) if sheet.metrics else Html()
    )  # fmt: skip
    return [head, told_apart(sheet), chart, numbers, contamination(sheet), by_source(sheet), answers(sheet)]


_HEAD = ("metric", "model", "value", "against the base", "verdict", "of")


def _models(sheet: Sheet) -> list[Score]:
    found = {score.model: score for scores in sheet.metrics.values() for score in scores}
    return list(found.values())


def _table(sheet: Sheet, *, shares: bool = True) -> list[list[str]]:
    rows = []
    for name, scores in sheet.metrics.items():
        if scores[0].is_share and not shares:
            continue
        base = next((score for score in scores if score.model == "base"), None)
        for score in scores:
            against = base is not None and score is not base
            rows.append(
                [
                    words_of(name),
                    score.model,
                    score.words,
                    difference(base, score) if base and against else UNKNOWN,
                    verdict(base, score) if base and against else UNKNOWN,
                    count(score.n) if score.n else UNKNOWN,
                ]
            )
    return rows


def told_apart(sheet: Sheet) -> Html:
    """The gain on the main metric in one line for each model."""
    name = main_metric(sheet)
    scores = sheet.metrics.get(name or "", [])
    base = next((score for score in scores if score.model == "base"), None)
    if name is None or base is None:
        return Html()
    lines = [
        f"{words_of(name)} of {score.model}: {difference(base, score)} against the base, "
        f"{VERDICTS[verdict(base, score)]}."
        for score in scores
        if score is not base
    ]
    return join(tag("p", line, class_="gain") for line in lines)


VERDICTS = {
    "better": "better beyond chance",
    "worse": "worse beyond chance",
    "not told apart": "which chance alone may give",
    "no interval": "measured without an interval",
}


def contamination(sheet: Sheet) -> Html:
    """What the test shares with the training data, beside the score that it may flatter."""
    told = []
    for evaluation in sheet.evaluations:
        shared = mapping(evaluation.get("contamination"))
        rows, of = number(shared.get("rows")), number(shared.get("of"))
        if rows is None or of is None or evaluation.get("model") == "base":
            continue
        long = text(shared.get("ngram"), "some")
        words = (
            f"{count(rows)} of {count(of, 'question')} share {long} words in a row with the training data."
        )
        told.append(
            note(
                words if len(sheet.evaluations) < 3 else f"{evaluation['model']}: {words}",
                "warning" if rows else "note",
            )
        )
    return join(told)


def by_source(sheet: Sheet) -> Html:
    """The same metrics for each source, folded."""
    rows: list[list[str]] = []
    for evaluation in sheet.evaluations:
        for source, metrics in mapping(evaluation.get("by_source")).items():
            for name, metric in mapping(metrics).items():
                if score := score_of(name, mapping(metric), text(evaluation.get("model")), 0):
                    rows.append([source, words_of(name), score.model, score.words, count(score.n)])
    rows.sort(key=lambda row: (row[0], row[1]))
    head = ("source", "metric", "model", "value", "of")
    return folded(f"By source ({len({row[0] for row in rows})})", table(head, rows)) if rows else Html()


def answers(sheet: Sheet) -> Html:
    """A few answers as they were given, folded."""
    parts = []
    for evaluation in sheet.evaluations:
        rows = [
            (
                text(sample.get("prompt")),
                text(sample.get("answer")),
                text(sample.get("expected")),
                _mark(sample),
            )
            for sample in mappings(evaluation.get("samples"))[:MAX_SAMPLES]
        ]
        if rows:
            head = ("prompt", "answer", "expected", "")
            name = f"Answers of {text(evaluation.get('model'))}"
            parts.append(folded(name, table(head, rows, numeric=False)))
    return join(parts)


def _mark(sample: dict[str, Any]) -> Html:
    match sample.get("correct"):
        case True:
            return tag("span", "✓ right", class_="good")
        case False:
            return tag("span", "✗ wrong", class_="bad")
    return Html()
