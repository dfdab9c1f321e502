"""Dots with their intervals, row by row on one scale: how sure is who about what. And bars of parts.

exact match      base  o                                    0.3% (0.1 to 1.9)
                 tuned                               --o-   99.3% (97.6 to 99.8)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from burnish.report.axis import Axis, mark
from burnish.report.lines import BOLD_LETTER, shape
from burnish.report.markup import Html, join, tag


@dataclass(frozen=True, slots=True)
class Dot:
    """One value with its interval, and the words that stand beside it."""

    name: str
    value: float
    low: float | None
    high: float | None
    words: str
    colour: int


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured, and who reached what."""

    name: str
    dots: Sequence[Dot]


@dataclass(frozen=True, slots=True)
class DotChart:
    """Rows on one axis; of shares the axis is 0 to 100%."""

    rows: Sequence[Row]
    share: bool = True


LINE, GAP = 21, 14


def height_of(chart: DotChart, width: int) -> int:
    """The height that the rows need."""
    head = 0 if width >= 500 else 18
    return 34 + sum(len(row.dots) * LINE + GAP + head for row in chart.rows)


def draw_dots(chart: DotChart, width: int) -> Html:
    """The inside of an SVG of that width and `height_of` it."""
    wide = width >= 500
    height = height_of(chart, width)
    longest = max((len(row.name) for row in chart.rows), default=0)
    left = min(190.0, 14 + BOLD_LETTER * longest) if wide else 8.0
    said = max((len(dot.words) for row in chart.rows for dot in row.dots), default=0)
    right = width - 14 - BOLD_LETTER * said
    values = [
        v for row in chart.rows for dot in row.dots for v in (dot.value, dot.low, dot.high) if v is not None
    ]
    axis = Axis.over([0.0, 1.0] if chart.share else values, num_ticks=4)

    def at(value: float) -> float:
        return round(left + 8 + axis.at(value) * (right - left - 16), 1)

    parts: list[Html] = []
    for value in axis.ticks:
        x = at(value)
        parts.append(tag("line", x1=x, y1=4, x2=x, y2=height - 24, class_="grid"))
        words = f"{mark(100 * value)}%" if chart.share else mark(value)
        parts.append(tag("text", words, x=x, y=height - 8, class_="tick middle"))
    y = 8.0
    for row in chart.rows:
        most = int((left if wide else width) / BOLD_LETTER)
        name = row.name if len(row.name) <= most else f"{row.name[: most - 1]}…"
        y += 0 if wide else 18
        parts.append(tag("text", name, x=0, y=y + 15 if wide else y - 2, class_="row-name"))
        for dot in row.dots:
            middle = y + LINE / 2
            if dot.low is not None and dot.high is not None:
                kind = f"whisker c{dot.colour % 8}"
                parts.append(tag("line", x1=at(dot.low), y1=middle, x2=at(dot.high), y2=middle, class_=kind))
            parts.append(shape(at(dot.value), middle, dot.colour))
            parts.append(tag("text", dot.words, x=right + 8, y=middle + 4, class_=f"value c{dot.colour % 8}"))
            y += LINE
        y += GAP
    return join(parts)


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, float]], str]], width: int) -> Html:
    """Bars of parts on one scale: (name, [(class, size)], words)."""
    wide = width >= 500
    left = 14 + BOLD_LETTER * max((len(name) for name, _, _ in rows), default=0) if wide else 0.0
    right = width - (18 + BOLD_LETTER * max((len(words) for _, _, words in rows), default=0) if wide else 0)
    largest = max((sum(size for _, size in parts) for _, parts, _ in rows), default=0) or 1.0
    drawn: list[Html] = []
    for place, (name, parts, words) in enumerate(rows):
        y = place * bar_step(width)
        drawn.append(tag("text", name, x=0, y=y + (20 if wide else 12), class_="row-name"))
        x = left
        for kind, size in parts:
            length = size / largest * (right - left)
            drawn.append(
                tag(
                    "rect",
                    x=round(x, 1),
                    y=y + (4 if wide else 19),
                    width=round(max(0.5, length - 1), 1),
                    height=24 if wide else 20,
                    class_=f"part {kind}",
                )
            )
            x += length
        end = {"x": round(x + 8, 1), "y": y + 20, "class_": "value"} if wide else {
            "x": width, "y": y + 12, "class_": "value end"
        }  # fmt: skip
        drawn.append(tag("text", words, **end))
    return join(drawn)


def bar_step(width: int) -> int:
    """From one bar to the next."""
    return 40 if width >= 500 else 54
