"""Token heat: a row's tokens coloured by their probability, before and after, in a terminal and as one HTML file.

What a row says is data: escape sequences are spelled out, HTML stays text, and the page has no script at all.
"""

from __future__ import annotations

import base64
import hashlib
import html as markup
from bisect import bisect_right

from rich.console import Group
from rich.table import Table
from rich.text import Text

from burnish.chat.strip import visible
from burnish.evaluation.sharpened import HeatRow, Sharpened

STEPS = (0.01, 0.1, 0.5, 0.9)
"""Where one heat ends and the next begins; five in all."""
HEATS = ("under 1%", "1 to 10%", "10 to 50%", "50 to 90%", "90% and more")
_STYLES = ("white on #8f2d1f", "grey7 on #e59a7d", "grey7 on #f0dfa8", "grey7 on #bfe3c9", "grey7 on #7cc79a")
_COLOURS = ("#8f2d1f", "#e59a7d", "#f0dfa8", "#bfe3c9", "#7cc79a")


def heat_of(p: float) -> int:
    """0 for cold, 4 for sure."""
    return bisect_right(STEPS, p)


def heat_terminal(sharpened: Sharpened) -> Group:
    """Each row twice, under the base and at the last look, and what the colours mean."""
    drawn: list[Text | Table] = [_table(sharpened)]
    for row in sharpened.rows:
        drawn.append(Text(f"\nrow {row.row}  {visible(row.place)}", style="bold"))
        drawn.append(Text(visible(_ending(row.prompt)).replace("\n", "⏎\n"), style="grey58"))
        for name, numbers in dict.fromkeys((row.looks[0], row.looks[-1])):
            line = Text(f"{name:>10}  ", style="grey58")
            for token, p in zip(row.tokens, numbers, strict=True):
                line.append(visible(token).replace("\n", "⏎"), style=_STYLES[heat_of(p)])
            drawn.append(line)
    legend = Text("  ").join(Text(name, style=style) for name, style in zip(HEATS, _STYLES, strict=True))
    return Group(*drawn, Text("\np of the token: ").append_text(legend))


def heat_page(sharpened: Sharpened, *, title: str) -> str:
    """One page that asks the network for nothing: figures, then each row at every look."""
    policy = f"default-src 'none'; style-src {_digest(_STYLE)}; base-uri 'none'; form-action 'none'"
    rows = "\n".join(_section(row) for row in sharpened.rows)
    legend = "".join(f'<li class="h{k}">{name}</li>' for k, name in enumerate(HEATS))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{markup.escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_safe(title)}</h1>\n<p>{_safe(sharpened.in_words())}.</p>\n{_figures(sharpened)}\n"
        f'<ul class="legend" aria-label="probability of the token">{legend}</ul>\n{rows}\n</body>\n</html>\n'
    )


def _table(sharpened: Sharpened) -> Table:
    table = Table(box=None, pad_edge=False, header_style="grey58")
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == _HEADINGS[0] else "right")
    for cells in _cells(sharpened):
        table.add_row(*cells)
    return table


_HEADINGS = ("tokens", "number", "p before", "p after", "base's first choice", "among its first five")


def _cells(sharpened: Sharpened) -> list[tuple[str, ...]]:
    return [
        (
            group.name,
            f"{group.n:,}",
            f"{group.base_p:.3f}",
            f"{group.p:.3f}",
            f"{group.base_top1:.1%}",
            f"{group.base_top5:.1%}",
        )
        for group in sharpened.groups
    ]


def _figures(sharpened: Sharpened) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEADINGS)
    body = "".join(
        "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in cells) + "</tr>" for cells in _cells(sharpened)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(row: HeatRow) -> str:
    before, *between, after = row.looks if len(row.looks) > 1 else (*row.looks, row.looks[0])
    film = "".join(_look(row, *look) for look in between)
    middle = f"<details><summary>{len(between)} looks between</summary>{film}</details>" if between else ""
    last = _look(row, *after) if len(row.looks) > 1 else ""
    return (
        f"<section><h2>row {row.row} <small>{_safe(row.place)}</small></h2>"
        f'<p class="prompt">{_safe(_ending(row.prompt))}</p>{_look(row, *before)}{middle}{last}</section>'
    )


def _look(row: HeatRow, name: str, numbers: tuple[float, ...]) -> str:
    tokens = "".join(
        f'<span class="h{heat_of(p)}" title="p {p:.3g}, the base\'s choice number {rank:,}, {_safe(group)}">'
        f"{_safe(token).replace(chr(10), '⏎')}</span>"
        for token, p, rank, group in zip(row.tokens, numbers, row.base_rank, row.groups, strict=True)
    )
    return f'<div class="look"><b>{_safe(name)}</b><p>{tokens}</p></div>'


def _ending(prompt: str, limit: int = 240) -> str:
    return prompt if len(prompt) <= limit else "…" + prompt[-limit:]


def _safe(text: str) -> str:
    return markup.escape(visible(text))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE = (
    ":root{color-scheme:light dark;--ink:#1c1c1a;--paper:#fbfaf7;--faint:#6b6a64;--rule:#dcd9d0}"
    "@media(prefers-color-scheme:dark){:root{--ink:#eceae4;--paper:#191917;--faint:#a3a098;--rule:#3a3934}}"
    "body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;"
    "margin:0 auto;padding:1.5rem}h1{font-size:1.3rem}h2{font-size:1rem;margin:0}"
    "small,.prompt,th{color:var(--faint);font-weight:400}.scroll{overflow-x:auto}"
    "table{border-collapse:collapse}th,td{text-align:right;padding:.2rem .8rem .2rem 0}"
    "th:first-child,td:first-child{text-align:left}section{border-top:1px solid var(--rule);padding:1rem 0}"
    ".prompt{white-space:pre-wrap;overflow-wrap:anywhere;font:.85rem/1.5 ui-monospace,monospace}"
    ".look{display:grid;grid-template-columns:5.5rem 1fr;gap:.5rem;align-items:baseline;margin:.3rem 0}"
    ".look b{color:var(--faint);font-weight:400;font-size:.85rem}"
    ".look p{margin:0;overflow-wrap:anywhere;white-space:pre-wrap;font:.9rem/1.9 ui-monospace,monospace}"
    ".look span,.legend li{padding:.15rem .1rem;border-radius:.2rem;color:#161614}"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:.5rem;padding:0}.legend li{padding:.1rem .5rem}"
    "summary{color:var(--faint);cursor:pointer;font-size:.85rem}"
    + "".join(f".look .h{k},.legend .h{k}{{background:{colour}}}" for k, colour in enumerate(_COLOURS))
    + ".look .h0,.legend .h0{color:#fff}"
)
