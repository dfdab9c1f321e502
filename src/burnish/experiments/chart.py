"""A line chart as an SVG page of its own, with the spread of each point; no library is needed to draw or to read it.

chart("held-out loss", "training tasks", {"mean": [Point(1, 4.1, 0.1), Point(8, 3.7, 0.05)]})
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 400, 70, 44, 190, 52
COLOURS = ("#3b6fb6", "#c2552d", "#4f8f4f", "#7d5ba6", "#8a7a3b")


@dataclass(frozen=True, slots=True)
class Point:
    """A mean at `x`, and how far its seeds stray from it."""

    x: float
    y: float
    error: float = 0.0


def chart(
    title: str,
    x_name: str,
    lines: Mapping[str, Sequence[Point]],
    *,
    names: Sequence[str] = (),
    log: bool = False,
) -> str:
    """The SVG; `names` are the words under x = 0, 1, 2, ..., `log` spaces x by its logarithm."""
    points = [point for line in lines.values() for point in line]
    place = (lambda x: math.log2(x)) if log else (lambda x: x)
    xs = [place(point.x) for point in points]
    low = min(point.y - point.error for point in points)
    high = max(point.y + point.error for point in points)
    pad = 0.06 * (high - low or 1.0)
    low, high = low - pad, high + pad

    def at(point: Point, shift: float = 0.0) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        across = (place(point.x) - min(xs)) / (max(xs) - min(xs) or 1.0)
        return LEFT + across * width, TOP + (high - point.y - shift) / (high - low) * height

    drawn = [f'<text x="{LEFT}" y="24" font-weight="bold">{escape(title)}</text>']
    for k in range(5):
        level = Point(points[0].x, low + (high - low) * k / 4)
        y = at(level)[1]
        drawn.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level.y:.3g}</text>')
    for x in sorted({point.x for point in points}):
        name = names[int(x)] if names else f"{x:g}"
        across = at(Point(x, low))[0]
        drawn.append(
            f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(name)}</text>'
        )
    drawn.append(f'<text x="{LEFT}" y="{HEIGHT - 10}">{escape(x_name)}</text>')
    for (name, line), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, line))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in line:
            (x, y), (_, top), (_, bottom) = at(point), at(point, point.error), at(point, -point.error)
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            drawn.append(
                f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{colour}"/>'
            )
        x, y = at(line[-1])
        drawn.append(f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    inside = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )
