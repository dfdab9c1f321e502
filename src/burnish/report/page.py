"""The report as one HTML file that holds everything it needs and asks the network for nothing.

Text of data, files and models is escaped by `markup`; what the film's player needs travels as JSON. The page's policy
allows its one script and its one style sheet, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from burnish.chat.strip import visible
from burnish.report.collect import Run
from burnish.report.headline import cards, title, warnings
from burnish.report.markup import Html, join, safe, tag
from burnish.report.sections.cost import cost
from burnish.report.sections.curves import curves
from burnish.report.sections.data import data
from burnish.report.sections.economy import curve, few_shot
from burnish.report.sections.evaluations import evaluations
from burnish.report.sections.forgetting import forgetting
from burnish.report.sections.samples import samples
from burnish.report.sections.sharpening import film, sharpening
from burnish.report.sections.what import in_words, what
from burnish.report.story import Section, note, section
from burnish.report.values import text

UNREADABLE = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError)
"""What a file in a form that nobody writes can raise in a section: the section is left out, and says so."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What belongs to no single run: curve.json, fewshot.json, the price of an hour of the machine."""

    curve: dict[str, Any] = field(default_factory=dict)
    few_shot: dict[str, Any] = field(default_factory=dict)
    price: float | None = None
    currency: str = ""


def html(runs: Sequence[Run], extras: Extras | None = None) -> str:
    """One page for all runs."""
    told = extras or Extras()
    style, script = asset("report.css"), asset("report.js")
    own = f"script-src {digest(script)}; style-src {digest(style)}"
    policy = f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"
    found, left_out = sections(runs, told)
    films = [
        {"run": visible(run.name), "rows": rows} for run in runs if (rows := _guarded(partial(film, run)))
    ]
    # `</script>` in a token must not end the data: "<" is written as JSON lets it be.
    embedded = json.dumps(films, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    top = partial(cards, runs, price=told.price, currency=told.currency)
    return asset("page.html").format_map(
        {
            "policy": safe(policy),
            "style": style,
            "script": script,
            "films": embedded,
            "title": safe(title(runs)),
            "kicker": safe(kicker(runs)),
            "lead": safe(lead(runs)),
            "cards": _guarded(top) or "",
            "warnings": _guarded(partial(warnings, runs)) or "",
            "contents": contents(found),
            "sections": join(_drawn(number, each) for number, each in enumerate(found, start=1)),
            "absent": _absent(left_out),
            "made": safe(made(runs)),
        }
    )


def sections(runs: Sequence[Run], extras: Extras) -> tuple[list[Section], list[str]]:
    """The sections that have something to show, and the names of those that have not, with the reason."""
    writers: list[tuple[str, str, Callable[[], Section | None]]] = [
        ("what was run", "resolved.yaml", partial(what, runs)),
        ("how well it does", "evals.json: burnish eval RUN writes it", partial(evaluations, runs)),
        ("what it says", "samples.jsonl: sample_prompts in the recipe", partial(samples, runs)),
        ("how it learnt", "metrics.jsonl", partial(curves, runs)),
        ("what it sharpened", "sharpening.jsonl", partial(sharpening, runs)),
        ("what it cost the model", "forgetting.jsonl: forgetting in the recipe", partial(forgetting, runs)),
        ("what it learnt from", "plan.json and certificate.json", partial(data, runs)),
        ("how much data was enough", "curve.json: burnish curve", partial(curve, extras.curve)),
        ("prompting or tuning", "fewshot.json: burnish fewshot", partial(few_shot, extras.few_shot)),
        ("what it took", "metrics.jsonl", partial(cost, runs, price=extras.price, currency=extras.currency)),
    ]
    found: list[Section] = []
    left_out: list[str] = []
    for name, source, write in writers:
        try:
            written = write()
        except UNREADABLE as error:
            kind = type(error).__name__
            broken = note(
                f"This part is left out: what its files hold is not what burnish writes ({kind}).", "warning"
            )
            written = section(name.replace(" ", "-"), name[:1].upper() + name[1:], "", [broken])
        if written is None:
            left_out.append(f"{name} ({source})")
        else:
            found.append(written)
    return found, left_out


def _guarded(draw: Callable[[], Any]) -> Any:
    try:
        return draw()
    except UNREADABLE:
        return None


def contents(found: Sequence[Section]) -> Html:
    """The list of sections."""
    return join(tag("li", tag("a", each.heading, href=f"#{each.anchor}")) for each in found)


def _drawn(place: int, found: Section) -> Html:
    head = tag(
        "h2",
        tag("span", f"{place}", class_="place", aria_hidden="true"),
        found.heading,
        id=f"{found.anchor}-title",
    )
    finding = join(tag("p", line, class_="finding") for line in found.finding.splitlines())
    return tag("section", head, finding, found.body, id=found.anchor, aria_labelledby=f"{found.anchor}-title")


def _absent(left_out: Sequence[str]) -> Html:
    if not left_out:
        return Html()
    return tag("p", f"Not in this report, for nothing was recorded: {'; '.join(left_out)}.")


def kicker(runs: Sequence[Run]) -> str:
    """The line above the title."""
    dates = sorted({text(run.environment.get("date")) for run in runs} - {""})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else ""
    kind = "Fine-tuning report" if len(runs) == 1 else f"Fine-tuning report, {len(runs)} runs"
    return f"{kind} · {when}" if when else kind


def lead(runs: Sequence[Run]) -> str:
    """What it is about in plain words."""
    if len(runs) == 1:
        return in_words(runs[0])
    models = list(dict.fromkeys(run.model for run in runs))
    return f"{len(runs)} ways to fine-tune {models[0] if len(models) == 1 else 'a model'}, on the same page."


def made(runs: Sequence[Run]) -> str:
    """What wrote the page, from where."""
    try:
        own = version("burnish")
    except PackageNotFoundError:
        own = ""
    places = ", ".join(str(run.path) for run in runs)
    return f"Written by burnish {own} from {places}. No figure here was typed by hand."


def write(page: str, path: Path) -> None:
    """Put the page in its place whole, whatever happens on the way."""
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def asset(name: str) -> str:
    """A file of the page as text."""
    return files("burnish.report").joinpath(name).read_text(encoding="utf-8")


def digest(content: str) -> str:
    """A hash as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
