"""A data-efficiency curve as an SVG of its own: points with intervals, the law through them, other arms as levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from burnish.experiments.chart import COLOURS

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 430, 64, 66, 210, 56
GREY = "#777"


class _Frame:
    """Where a size and a value stand on the page."""

    def __init__(self, sizes: Sequence[float], low: float, high: float) -> None:
        self.first, self.last = math.log(min(sizes)), math.log(max(sizes))
        pad = 0.05 * (high - low or 1.0)
        self.low, self.high = low - pad, high + pad

    def x(self, rows: float) -> float:
        share = (math.log(rows) - self.first) / (self.last - self.first or 1.0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def plot(
    result: Mapping[str, Any], *, title: str = "", levels: Mapping[str, float] | None = None, x_name: str = ""
) -> str:
    """The picture of a curve.json; `levels` are other arms, drawn as lines across."""
    share = result["metric"] != "loss"
    sizes = result["sizes"]
    across = {"base": result["base"]["value"], **(levels or {})}
    values = [value for own in sizes.values() for one in own for value in (one["low"], one["high"])]
    values += across.values()
    rows = sorted({one["rows"] for own in sizes.values() for one in own})
    frame = _Frame(rows, min(values), max(values))
    name = f"{result['metric']} match" if result["metric"] == "exact" else result["metric"]
    drawn = [
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">{escape(title or f"What rows are worth: {name}")}'
        "</text>",
        f'<text x="{LEFT}" y="44" fill="{GREY}">{escape(name)} on {result["held_out"]:,} held-out rows; '
        "bars: 95% over rows and seeds; lines: fitted law with its 95% band</text>",
        *_axes(frame, rows, share),
        f'<text x="{LEFT}" y="{HEIGHT - 12}" fill="{GREY}">{escape(x_name or "training rows")}</text>',
    ]
    right = WIDTH - RIGHT
    labels: list[tuple[float, str, str]] = []
    for label, value in across.items():
        y = frame.y(value)
        drawn.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{GREY}" stroke-dasharray="5 4"/>'
        )
        labels.append((y, label, GREY))
    for (rule, own), colour in zip(sizes.items(), COLOURS, strict=False):
        drawn += _law(frame, result["lines"].get(rule, []), colour)
        drawn += _points(frame, own, colour, polyline=rule not in result["lines"])
        labels.append((frame.y(own[-1]["value"]), f"equal {rule}", colour))
    drawn += _labels(labels, right + 10)
    inside = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n{inside}\n</svg>\n'
    )


def _axes(frame: _Frame, rows: Sequence[int], share: bool) -> list[str]:
    drawn = []
    for k in range(6):
        value = frame.low + (frame.high - frame.low) * k / 5
        if share:
            value = k / 5
            if not frame.low <= value <= frame.high:
                continue
        y = frame.y(value)
        words = f"{100 * value:.0f}%" if share else f"{value:.3g}"
        drawn.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{GREY}">{words}</text>')
    for size in rows:
        x = frame.x(size)
        drawn.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="{GREY}">{size:,}</text>'
        )
    return drawn


def _law(frame: _Frame, line: Sequence[Sequence[float]], colour: str) -> list[str]:
    """The band and the line of a law, kept within the frame."""
    if not line:
        return []

    def at(rows: float, value: float) -> str:
        return f"{frame.x(rows):.1f},{frame.y(min(max(value, frame.low), frame.high)):.1f}"

    band = [at(n, high) for n, _, _, high in line] + [at(n, low) for n, _, low, _ in reversed(line)]
    path = " ".join(at(n, value) for n, value, _, _ in line)
    return [
        f'<polygon points="{" ".join(band)}" fill="{colour}" fill-opacity="0.14"/>',
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>',
    ]


def _points(frame: _Frame, own: Sequence[Mapping[str, Any]], colour: str, *, polyline: bool) -> list[str]:
    drawn = []
    for one in own:
        x, y = frame.x(one["rows"]), frame.y(one["value"])
        low, high = frame.y(one["low"]), frame.y(one["high"])
        drawn.append(
            f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}" stroke-width="1.4"/>'
        )
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"/>')
    if polyline:
        path = " ".join(f"{frame.x(one['rows']):.1f},{frame.y(one['value']):.1f}" for one in own)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
    return drawn


def _labels(labels: Sequence[tuple[float, str, str]], x: float) -> list[str]:
    """Words beside the ends of lines, pushed apart where they would overlap."""
    drawn, before = [], -1e9
    for y, text, colour in sorted(labels):
        place = max(y, before + 15)
        drawn.append(f'<text x="{x}" y="{place + 4:.1f}" fill="{colour}">{escape(text)}</text>')
        before = place
    return drawn
