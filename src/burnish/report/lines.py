"""Line charts as SVG: values over steps, with bands for intervals, rules for limits, names at the ends of lines.

Colours are classes (`c0`, `c1`, ...), so that the page's scheme decides them; shape and dashes tell lines apart too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from burnish.report.axis import Axis, mark, wants_log
from burnish.report.markup import Html, join, safe, tag

LETTER = 6.6
"""About how wide a letter of the charts' type is."""

MAX_NAME = 24
"""Letters of a name at the end of a line."""

BOLD_LETTER = 7.4
"""And of its bold, in the widest of the faces that a page may get."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: points in the order of x; `low` and `high` are its interval where it has one."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    faint: bool = False
    dashed: bool = False
    dots: bool = False
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """What a line chart shows; `rules` are limits with their names, `named` has a legend for a single line too."""

    lines: Sequence[Line]
    x_name: str
    y_name: str
    rules: Sequence[tuple[float, str]] = ()
    log_x: bool = False
    log_y: bool | None = None
    percent: bool = False
    named: bool = False
    marks: Sequence[tuple[float, str]] = field(default=())


def draw(chart: Chart, width: int, height: int) -> Html:
    """The inside of an SVG of that size."""
    return _Drawing(chart, width, height).whole()


class _Drawing:
    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self.chart = chart
        ys = [y for line in chart.lines for _, y in line.points]
        bounds = [y for line in chart.lines for y in (*line.low, *line.high)]
        levels = [*ys, *bounds, *(y for y, _ in chart.rules)]
        log = wants_log(ys) and min(levels) > 0 if chart.log_y is None else chart.log_y
        self.y = Axis.over(levels, log=log, num_ticks=4 if height < 240 else 5)
        across = [x for line in chart.lines for x, _ in line.points]
        self.x = Axis.over(across, log=chart.log_x, tight=True, num_ticks=4 if width < 500 else 7)
        self.wide = width >= 500
        longest = max(len(self.tick(value)) for value in self.y.ticks)
        self.left, self.top = 12 + LETTER * longest, 26
        named = [line.name for line in chart.lines if line.name and not line.faint]
        self.right = width - (
            16 + BOLD_LETTER * min(MAX_NAME, max(map(len, named), default=0)) if self.names_fit() else 14
        )
        self.bottom = height - 38
        self.width, self.height = width, height

    def names_fit(self) -> bool:
        """Names stand at the lines' ends where there is room; on a narrow page the legend has them."""
        return self.wide and 1 < len([line for line in self.chart.lines if line.name and not line.faint]) <= 5

    def tick(self, value: float) -> str:
        return f"{mark(100 * value)}%" if self.chart.percent else mark(value)

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = self.left + self.x.at(x) * (self.right - self.left)
        return round(across, 1), round(self.bottom - self.y.at(y) * (self.bottom - self.top), 1)

    def whole(self) -> Html:
        return join(
            [*self.grid(), *self.limits(), *(self.line(line) for line in self.chart.lines), *self.names()]
        )

    def grid(self) -> list[Html]:
        scale = " (log scale)" if self.y.log else ""
        parts = [_text(0, 13, f"{self.chart.y_name}{scale}", "axis-name")]
        for value in self.y.ticks:
            _, y = self.at(self.x.low, value)
            parts.append(_stroke(self.left, y, self.right, y, "grid"))
            parts.append(_text(self.left - 7, y + 4, self.tick(value), "tick end"))
        for value in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            parts.append(_stroke(x, self.bottom, x, self.bottom + 4, "grid"))
            parts.append(_text(x, self.bottom + 18, mark(value), "tick middle"))
        scale = " (log scale)" if self.chart.log_x else ""
        parts.append(_text(self.right, self.height - 3, f"{self.chart.x_name}{scale}", "axis-name end"))
        return parts

    def limits(self) -> list[Html]:
        parts = []
        for value, words in self.chart.rules:
            _, y = self.at(self.x.low, value)
            parts.append(_stroke(self.left, y, self.right, y, "limit"))
            parts.append(_text(self.right - 4, y - 5, words, "limit-name end"))
        for value, words in self.chart.marks:
            x, _ = self.at(value, self.y.low)
            parts.append(_stroke(x, self.top, x, self.bottom, "mark"))
            late = self.x.at(value) > 0.5
            parts.append(
                _text(x + (-6 if late else 6), self.top + 11, words, "mark-name end" if late else "mark-name")
            )
        return parts

    def line(self, line: Line) -> Html:
        placed = [self.at(x, y) for x, y in line.points]
        colour = f"c{line.colour % 8}"
        parts: list[Html] = []
        if len(line.low) == len(line.high) == len(placed):
            if len(placed) > 1 and line.joined:
                edge = [self.at(x, y) for (x, _), y in zip(line.points, line.high, strict=True)]
                back = [self.at(x, y) for (x, _), y in zip(line.points, line.low, strict=True)]
                parts.append(tag("polygon", points=_path([*edge, *back[::-1]]), class_=f"band {colour}"))
            else:
                for (x, _), low, high in zip(line.points, line.low, line.high, strict=True):
                    (across, top), (_, base) = self.at(x, high), self.at(x, low)
                    parts.append(_stroke(across, top, across, base, f"whisker {colour}"))
        kind = f"line {colour}{' faint' if line.faint else ''}{' dashed' if line.dashed else ''}"
        if len(placed) > 1 and line.joined:
            parts.append(tag("polyline", points=_path(placed), class_=kind))
        if line.dots or len(placed) == 1 or not line.joined:
            parts += [shape(x, y, line.colour) for x, y in placed]
        return join(parts)

    def names(self) -> list[Html]:
        """The lines' names at their ends, moved apart where they would lie on each other."""
        if not self.names_fit():
            return []
        named = [
            line
            for line in self.chart.lines
            if line.name and not line.faint and self.x.at(line.points[-1][0]) > 0.9
        ]
        ends = sorted((self.at(*line.points[-1])[1], line.colour, line.name) for line in named)
        parts, last = [], -100.0
        for y, colour, name in ends:
            last = max(y + 4, last + 15)
            shown = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
            parts.append(_text(self.right + 10, last, shown, f"name c{colour % 8}"))
        return parts


def shape(x: float, y: float, colour: int) -> Html:
    """A mark that colour-blind readers tell apart: circle, square, triangle, diamond in turn."""
    named = f"dot c{colour % 8}"
    match colour % 4:
        case 0:
            return tag("circle", cx=x, cy=y, r=4.2, class_=named)
        case 1:
            return tag("rect", x=round(x - 3.8, 1), y=round(y - 3.8, 1), width=7.6, height=7.6, class_=named)
        case 2:
            return tag(
                "polygon", points=_path([(x, y - 5), (x + 4.8, y + 3.8), (x - 4.8, y + 3.8)]), class_=named
            )
    return tag(
        "polygon", points=_path([(x, y - 5.4), (x + 5.4, y), (x, y + 5.4), (x - 5.4, y)]), class_=named
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return tag("line", x1=round(x1, 1), y1=round(y1, 1), x2=round(x2, 1), y2=round(y2, 1), class_=kind)


def _text(x: float, y: float, words: str, kind: str) -> Html:
    return tag("text", safe(words), x=round(x, 1), y=round(y, 1), class_=kind)
