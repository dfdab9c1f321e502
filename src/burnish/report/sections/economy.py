"""How much data was enough, and whether tuning pays: the data-efficiency curve, and examples in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.report.dots import Dot, DotChart, Row
from burnish.report.figure import dot_figure, line_figure
from burnish.report.lines import Chart, Line
from burnish.report.markup import Html, bullets
from burnish.report.story import BASE_COLOUR, Section, section
from burnish.report.values import mapping, mappings, number, numbers, text, texts, whole
from burnish.report.words import UNKNOWN, count, decimal, percent

FIT_POINTS = 48
STEEPEST = 20.0


def curve(found: dict[str, Any]) -> Section | None:
    """The section on curve.json."""
    points = mappings(found.get("points"))
    if not points:
        return None
    advice = texts(found.get("advice"))
    parts = [_curve(found, points), bullets(advice[1:], "advice") if advice[1:] else Html()]
    return section(
        "curve",
        "How much data was enough",
        advice[0] if advice else "Quality by the number of lessons.",
        parts,
    )


Sized = tuple[float, float, float, float]
"""Rows, value, and its interval."""


def by_size(found: dict[str, Any], rule: str) -> tuple[list[Sized], bool]:
    """What each size reached under a rule, and whether the interval is that of the seeds' mean.

    Where the file does not say so itself, it reaches over the intervals of all seeds: too wide rather than too narrow.
    """
    told = [sized(each) for each in mappings(mapping(found.get("sizes")).get(rule))]
    if any(told):
        return sorted(each for each in told if each), True
    sizes: dict[float, list[Sized]] = {}
    for point in mappings(found.get("points")):
        if text(point.get("rule")) == rule and (one := sized(point)):
            sizes.setdefault(one[0], []).append(one)
    return [
        (
            rows,
            sum(one[1] for one in same) / len(same),
            min(one[2] for one in same),
            max(one[3] for one in same),
        )
        for rows, same in sorted(sizes.items())
    ], False


def sized(point: dict[str, Any]) -> Sized | None:
    """A point with its interval; None where it has no place on the chart."""
    rows, value, low, high = (number(point.get(key)) for key in ("rows", "value", "low", "high"))
    if rows is None or rows <= 0 or value is None:
        return None
    return rows, value, value if low is None else low, value if high is None else high


def _curve(found: dict[str, Any], points: Sequence[dict[str, Any]]) -> Html:
    lines: list[Line] = []
    rows: list[list[str]] = []
    shares = all(0 <= (number(point.get("value")) or 0) <= 1 for point in points)
    shares = shares and "loss" not in text(found.get("metric"))
    write = percent if shares else decimal
    of_mean = False
    for colour, rule in enumerate(dict.fromkeys(text(point.get("rule")) for point in points)):
        at, of_mean = by_size(found, rule)
        name = f"equal {rule}" if rule in ("epochs", "steps") else rule
        means = [(size, mean) for size, mean, _, _ in at]
        low, high = [low for _, _, low, _ in at], [high for _, _, _, high in at]
        lines.append(Line(name, means, colour, low, high, dots=True, joined=False))
        lines.append(law(found, rule, means, colour))
        rows += [[name, count(size), write(mean), f"{write(a)} to {write(b)}"] for size, mean, a, b in at]
    bars = "its 95% interval" if of_mean else "over the intervals of all seeds"
    words = f"Each mark is the mean over seeds, its bar {bars}; the line is the fitted law."
    metric = text(found.get("metric"), "quality").replace("_", " ")
    chart = Chart(lines, "demonstrations", metric, log_x=True, log_y=False, percent=shares)
    return line_figure(
        "Quality by demonstrations", words, chart, rows, ("rule", "demonstrations", metric, "interval")
    )


def law(found: dict[str, Any], rule: str, means: Sequence[tuple[float, float]], colour: int) -> Line:
    """The fitted law over the sizes that were tried: as it was written down with its band, else from its numbers."""
    told = mapping(found.get("lines")).get(rule)
    placed = [numbers(each) for each in told] if isinstance(told, list) else []
    band = [[end for end in each if end is not None] for each in placed]
    band = sorted(each for each in band if len(each) == 4 and each[0] > 0)
    if band:
        way = [(each[0], each[1]) for each in band]
        return Line("", way, colour, [each[2] for each in band], [each[3] for each in band])
    return Line("", fit(mapping(mapping(found.get("fit")).get(rule)), means), colour)


def fit(law: dict[str, Any], means: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """plateau - scale * rows ** -exponent over the sizes that were tried; its other sign where that is nearer."""
    plateau, exponent, scale = (number(law.get(key)) for key in ("plateau", "exponent", "scale"))
    # A law with a gap is of another form, and comes with its line.
    if plateau is None or exponent is None or scale is None or "gap" in law or len(means) < 2:
        return []
    if abs(exponent) > STEEPEST:
        return []
    first, last = means[0][0], means[-1][0]
    sizes = [first * (last / first) ** (k / (FIT_POINTS - 1)) for k in range(FIT_POINTS)]
    drawn = [[(size, plateau + sign * scale * size**-exponent) for size in sizes] for sign in (-1, 1)]
    return min(drawn, key=lambda line: abs(line[0][1] - means[0][1]))


def few_shot(found: dict[str, Any]) -> Section | None:
    """The section on fewshot.json."""
    arms = [arm for arm in mappings(found.get("arms")) if number(arm.get("value")) is not None]
    if not arms:
        return None
    rows, table = [], []
    for arm in arms:
        name = text(arm.get("name"), "arm")
        value, low, high = (number(arm.get(key)) for key in ("value", "low", "high"))
        ends = f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None and high is not None else ""
        words = f"{percent(value)}{ends}"
        colour = 0 if name == "tuned" else BASE_COLOUR
        rows.append(Row(name, [Dot(name, value or 0.0, low, high, words, colour)]))
        tokens = number(arm.get("tokens_per_request"))
        table.append(
            [name, words, count(tokens) if tokens is not None else UNKNOWN, count(number(arm.get("n")))]
        )
    advice = texts(found.get("advice"))
    pays = whole(found.get("pays_after_requests"))
    told = f"Tuning pays for itself after {count(pays, 'request')}." if pays is not None else ""
    words = "The same held-out questions, asked with no examples, with examples in the prompt, and of the tuned model."
    head = ("arm", "right", "tokens a request", "of")
    share = all(0 <= (number(arm.get("value")) or 0) <= 1 for arm in arms)
    parts = [
        dot_figure(
            "Examples in the prompt, or tuning", words, DotChart(rows, share=share), table, head, Html()
        ),
        bullets(advice if told else advice[1:], "advice") if advice else Html(),
    ]
    return section("few-shot", "Prompting or tuning", told or (advice[0] if advice else ""), parts)
