"""HTML made of text: whatever comes from data, files or models is escaped here, or does not reach the page.

tag("td", "<script>")        '<td>&lt;script&gt;</td>'
tag("p", Html("a<b>c</b>"))  '<p>a<b>c</b></p>'
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from burnish.chat.strip import visible


class Html(str):
    """Markup that was made here, and is not escaped again."""

    __slots__ = ()


def safe(value: object) -> Html:
    """A text as markup; marks that reverse or hide text are made visible."""
    if isinstance(value, Html):
        return value
    text = str(value)
    plain = (
        text.isascii() and text.isprintable()
    )  # most text is, and going through it letter by letter is slow
    return Html(html.escape(text if plain else visible(text)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after another."""
    return Html(between.join(safe(part) for part in parts))


def tag(name: str, *parts: object, **attributes: object) -> Html:
    """An element; `class_` is its class, `data_step` an attribute data-step, None leaves an attribute out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{safe(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{said}>{join(parts)}</{name}>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numeric: bool = True) -> Html:
    """A table whose first column names its rows; the others are set as figures unless `numeric` is False."""
    first = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        tag(
            "tr",
            *(tag("td", cell) if place else tag("th", cell, scope="row") for place, cell in enumerate(row)),
        )
        for row in rows
    ]
    shown = tag("table", tag("thead", first), tag("tbody", *body), class_="figures" if numeric else None)
    return tag("div", shown, class_="scroll", tabindex="0", role="group", aria_label="table")


def definitions(pairs: Iterable[tuple[object, object]]) -> Html:
    """Names and what they stand for; pairs without a value are left out."""
    shown = [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if str(value)]
    return tag("dl", *shown)


def folded(summary: object, *parts: object, class_: str | None = None) -> Html:
    """What is there for whoever asks, closed at first."""
    return tag("details", tag("summary", summary), *parts, class_=class_)


def bullets(items: Iterable[object], class_: str | None = None) -> Html:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items), class_=class_)
