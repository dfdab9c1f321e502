"""A figure of the page: a chart drawn twice (for wide and narrow pages), what it shows in words, and its numbers.

Every chart has a title and a description for those who do not see it, and the numbers behind it as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from burnish.report.dots import DotChart, bar_step, bars, draw_dots, height_of
from burnish.report.lines import Chart, Line, draw
from burnish.report.markup import Html, folded, join, safe, table, tag

WIDE, NARROW = 860, 350
HALF = 420
MAX_ROWS = 120


def svg(title: str, words: str, inside: Html, width: int, height: int, kind: str) -> Html:
    """An SVG with its title and description."""
    told = join([tag("title", title), tag("desc", words)])
    head = f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{safe(title)}">'
    return Html(f"{head}{told}{inside}</svg>")


def line_figure(
    title: str,
    words: str,
    chart: Chart,
    rows: Sequence[Sequence[object]],
    head: Sequence[object],
    *,
    half: bool = False,
) -> Html:
    """A line chart with its legend and table; `half` is one of two side by side."""
    if not any(line.points for line in chart.lines):
        return Html()
    shown = replace(chart, lines=[line for line in chart.lines if line.points])
    wide = HALF if half else WIDE
    drawn = [
        svg(title, words, draw(shown, wide, 250 if half else 300), wide, 250 if half else 300, "wide"),
        svg(title, words, draw(shown, NARROW, 240), NARROW, 240, "narrow"),
    ]
    return figure(
        title, words, drawn, legend(shown.lines, least=1 if shown.named else 2), head, rows, half=half
    )


def dot_figure(
    title: str,
    words: str,
    chart: DotChart,
    rows: Sequence[Sequence[object]],
    head: Sequence[object],
    names: Html,
) -> Html:
    """Dots with intervals, with their table."""
    drawn = [
        svg(title, words, draw_dots(chart, width), width, height_of(chart, width), kind)
        for width, kind in ((WIDE, "wide"), (NARROW, "narrow"))
    ]
    return figure(title, words, drawn, names, head, rows)


def bar_figure(
    title: str,
    words: str,
    parts: Sequence[tuple[str, Sequence[tuple[str, float]], str]],
    rows: Sequence[Sequence[object]],
    head: Sequence[object],
    names: Html,
) -> Html:
    """Bars of parts, with their table."""
    drawn = [
        svg(title, words, bars(parts, width), width, len(parts) * bar_step(width), kind)
        for width, kind in ((WIDE, "wide"), (NARROW, "narrow"))
    ]
    return figure(title, words, drawn, names, head, rows)


def figure(
    title: str,
    words: str,
    drawn: Sequence[Html],
    names: Html,
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    half: bool = False,
) -> Html:
    """Title, legend, chart, caption and the folded table."""
    kept, note = thinned(rows)
    return tag(
        "figure",
        tag("figcaption", tag("h3", title), tag("p", words)),
        names,
        *drawn,
        folded(f"The numbers{note}", table(head, kept)),
        class_="half" if half else None,
    )


def thinned(rows: Sequence[Sequence[object]]) -> tuple[Sequence[Sequence[object]], str]:
    """At most so many rows, evenly taken with the last, and words that say so."""
    if len(rows) <= MAX_ROWS:
        return rows, ""
    every = -(-len(rows) // MAX_ROWS)
    kept = [row for place, row in enumerate(rows) if place % every == 0 or place == len(rows) - 1]
    return kept, f" (one row in {every} of {len(rows):,})"


def legend(lines: Sequence[Line], *, least: int = 2) -> Html:
    """Names with their marks; of fewer lines than `least` none."""
    named = [line for line in lines if line.name]
    if len(named) < least:
        return Html()
    return keys(
        [
            (line.name, line.colour, "faint" if line.faint else "dashed" if line.dashed else "")
            for line in named
        ]
    )


def keys(entries: Sequence[tuple[str, int, str]]) -> Html:
    """A legend: (name, colour, kind of mark)."""
    items = [
        tag("li", tag("i", class_=f"key c{colour % 8} {kind}".strip(), aria_hidden="true"), safe(name))
        for name, colour, kind in entries
    ]
    return tag("ul", *items, class_="legend")
