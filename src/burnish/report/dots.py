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


GAP = 14
"""Between rows."""


def height_of(chart: DotChart, width: int) -> int:
    """The height that the rows need."""
    line, head = _steps(width)
    return 34 + sum(len(row.dots) * line + GAP + head for row in chart.rows)


def _steps(width: int) -> tuple[int, int]:
    """The height of a dot, and of a row's name where it stands above: on a narrow page words stand over the dots."""
    return (21, 0) if width >= 500 else (34, 18)


def draw_dots(chart: DotChart, width: int) -> Html:
    """The inside of an SVG of that width and `height_of` it."""
    return _Dots(chart, width).whole()


class _Dots:
    def __init__(self, chart: DotChart, width: int) -> None:
        self.chart, self.width, self.wide = chart, width, width >= 500
        self.line, self.head = _steps(width)
        self.height = height_of(chart, width)
        longest = max((len(row.name) for row in chart.rows), default=0)
        said = max((len(dot.words) for row in chart.rows for dot in row.dots), default=0)
        self.left = min(210.0, 14 + BOLD_LETTER * longest) if self.wide else 0.0
        self.right = width - 14 - BOLD_LETTER * said if self.wide else float(width)
        ends = [end for row in chart.rows for dot in row.dots for end in (dot.value, dot.low, dot.high)]
        values = [end for end in ends if end is not None]
        self.axis = Axis.over([0.0, 1.0] if chart.share else values, num_ticks=4)

    def at(self, value: float) -> float:
        return round(self.left + 14 + self.axis.at(value) * (self.right - self.left - 28), 1)

    def whole(self) -> Html:
        parts = self.grid()
        y = 8.0
        for row in self.chart.rows:
            y += self.head
            most = int((self.left if self.wide else self.width) / BOLD_LETTER)
            name = row.name if len(row.name) <= most else f"{row.name[: most - 1]}…"
            parts.append(tag("text", name, x=0, y=y + 15 if self.wide else y - 2, class_="row-name"))
            for dot in row.dots:
                parts.append(self.dot(dot, y))
                y += self.line
            y += GAP
        return join(parts)

    def grid(self) -> list[Html]:
        parts = []
        for value in self.axis.ticks:
            x = self.at(value)
            parts.append(tag("line", x1=x, y1=4, x2=x, y2=self.height - 24, class_="grid"))
            words = f"{mark(100 * value)}%" if self.chart.share else mark(value)
            parts.append(tag("text", words, x=x, y=self.height - 8, class_="tick middle"))
        return parts

    def dot(self, dot: Dot, y: float) -> Html:
        colour = f"c{dot.colour % 8}"
        middle = y + (10.5 if self.wide else 24)
        if self.wide:
            words = tag("text", dot.words, x=self.right + 8, y=middle + 4, class_=f"value {colour}")
        else:
            words = tag("text", dot.words, x=self.width, y=y + 13, class_=f"value end {colour}")
        if dot.low is None or dot.high is None:
            return join([shape(self.at(dot.value), middle, dot.colour), words])
        ends = {"x1": self.at(dot.low), "y1": middle, "x2": self.at(dot.high), "y2": middle}
        whisker = tag("line", **ends, class_=f"whisker {colour}")
        return join([whisker, shape(self.at(dot.value), middle, dot.colour), words])


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
