"""How much data was enough, and whether tuning pays: the data-efficiency curve, and examples in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.report.dots import Dot, DotChart, Row
from burnish.report.figure import dot_figure, line_figure
from burnish.report.lines import Chart, Line
from burnish.report.markup import Html, bullets
from burnish.report.story import BASE_COLOUR, Section, section
from burnish.report.values import mapping, mappings, number, text, texts, whole
from burnish.report.words import UNKNOWN, count, decimal, percent

FIT_POINTS = 48


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


def by_size(points: Sequence[dict[str, Any]], rule: str) -> list[tuple[float, float, float, float]]:
    """(rows, mean over seeds, lowest low, highest high) for one rule."""
    sizes: dict[float, list[dict[str, Any]]] = {}
    for point in points:
        rows = number(point.get("rows"))
        if rows and rows > 0 and text(point.get("rule")) == rule and number(point.get("value")) is not None:
            sizes.setdefault(rows, []).append(point)
    found = []
    for rows, same in sorted(sizes.items()):
        values = [value for point in same if (value := number(point.get("value"))) is not None]
        low = [end for point in same if (end := number(point.get("low"))) is not None]
        high = [end for point in same if (end := number(point.get("high"))) is not None]
        found.append((rows, sum(values) / len(values), min(low or values), max(high or values)))
    return found


def _curve(found: dict[str, Any], points: Sequence[dict[str, Any]]) -> Html:
    lines: list[Line] = []
    rows: list[list[str]] = []
    shares = all(0 <= (number(point.get("value")) or 0) <= 1 for point in points)
    shares = shares and "loss" not in text(found.get("metric"))
    write = percent if shares else decimal
    for colour, rule in enumerate(dict.fromkeys(text(point.get("rule")) for point in points)):
        at = by_size(points, rule)
        name = f"equal {rule}" if rule in ("epochs", "steps") else rule
        means = [(size, mean) for size, mean, _, _ in at]
        low, high = [low for _, _, low, _ in at], [high for _, _, _, high in at]
        lines.append(Line(name, means, colour, low, high, dots=True, joined=False))
        fitted = fit(mapping(mapping(found.get("fit")).get(rule)), means)
        lines.append(Line("", fitted, colour))
        rows += [[name, count(size), write(mean), f"{write(a)} to {write(b)}"] for size, mean, a, b in at]
    words = "Each mark is the mean over seeds, its bar reaches over their intervals; the line is the fitted power law."
    metric = text(found.get("metric"), "quality").replace("_", " ")
    chart = Chart(lines, "demonstrations", metric, log_x=True, log_y=False, percent=shares)
    return line_figure(
        "Quality by demonstrations", words, chart, rows, ("rule", "demonstrations", metric, "interval")
    )


def fit(law: dict[str, Any], means: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """plateau - scale * rows ** -exponent over the sizes that were tried; its other sign where that is nearer."""
    plateau, exponent, scale = (number(law.get(key)) for key in ("plateau", "exponent", "scale"))
    if plateau is None or exponent is None or scale is None or len(means) < 2 or abs(exponent) > 50:
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
