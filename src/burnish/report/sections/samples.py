"""The same prompts asked again and again while the run went on: answers that stayed the same are one entry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from burnish.report.collect import Run
from burnish.report.markup import Html, folded, tag
from burnish.report.story import Section, run_heading, section
from burnish.report.values import mapping, mappings, number, text
from burnish.report.words import count

MAX_PROMPTS = 12
SHOWN = 600
REASONS = {"stop": "stopped by itself", "length": "ran on until it was cut off"}


def samples(runs: Sequence[Run]) -> Section | None:
    """The section."""
    if not any(by_prompt(run) for run in runs):
        return None
    prompts = list(dict.fromkeys(prompt for run in runs for prompt in by_prompt(run)))[:MAX_PROMPTS]
    if len(runs) == 1:
        parts = [history(prompt, by_prompt(runs[0])[prompt]) for prompt in prompts]
    else:
        parts = [side_by_side(runs, prompt) for prompt in prompts]
    return section("samples", "What it says", finding(runs), parts)


def side_by_side(runs: Sequence[Run], prompt: str) -> Html:
    """What each run answers to one prompt at its end, with its history for whoever asks."""
    answers = []
    for run in runs:
        lines = by_prompt(run).get(prompt)
        if lines:
            last = _entry(lines[-1:], text(lines[-1].get("text")).strip())
            way = folded("from the first answer on", tag("ol", *_entries(lines)))
            answers.append(tag("li", run_heading(runs, run), tag("ol", last), way))
    return tag("article", tag("h3", f"“{prompt}”", class_="prompt"), tag("ul", *answers, class_="answers"))


def finding(runs: Sequence[Run]) -> str:
    """How many of the last answers stop by themselves, against the first."""
    first = [lines[0] for run in runs for lines in by_prompt(run).values()]
    last = [lines[-1] for run in runs for lines in by_prompt(run).values()]
    stops = [sum(text(line.get("finish_reason")) == "stop" for line in lines) for lines in (first, last)]
    answers = count(len(last), "first answer")
    return f"Of {answers}, {stops[0]} stopped by themselves; of the last ones {stops[1]} do."


def by_prompt(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The answers to each prompt in the order of steps."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in run.samples:
        if number(line.get("step")) is not None:
            found.setdefault(prompt_of(line), []).append(line)
    return {prompt: sorted(lines, key=lambda line: float(line["step"])) for prompt, lines in found.items()}


def prompt_of(line: dict[str, Any]) -> str:
    """The prompt as text; of a conversation its last message."""
    prompt = line.get("prompt")
    if isinstance(prompt, list):
        return (
            text(mapping(mappings(prompt)[-1]).get("content"), "a conversation") if mappings(prompt) else "?"
        )
    return text(prompt, "?")


def history(prompt: str, lines: list[dict[str, Any]]) -> Html:
    """One prompt: the first answer, the last one, and those between them for whoever asks."""
    drawn = _entries(lines)
    between = drawn[1:-1]
    middle = (
        folded(f"{count(len(between), 'other answer')} on the way", tag("ol", *between)) if between else ""
    )
    ends = [drawn[0], *([tag("li", middle, class_="between")] if between else []), *drawn[1:][-1:]]
    return tag("article", tag("h3", f"“{prompt}”", class_="prompt"), tag("ol", *ends, class_="history"))


def _entries(lines: list[dict[str, Any]]) -> list[Html]:
    same = groupby(lines, key=lambda line: text(line.get("text")).strip())
    return [_entry(list(those), answer) for answer, those in same]


def _entry(lines: list[dict[str, Any]], answer: str) -> Html:
    first, last = (number(lines[at].get("step")) or 0 for at in (0, -1))
    when = (
        "before training"
        if last == 0
        else f"update {first:,.0f}"
        if first == last
        else f"updates {first:,.0f} to {last:,.0f}"
    )
    reason = text(lines[-1].get("finish_reason"))
    ended = REASONS.get(reason, reason)
    shown = answer if len(answer) <= SHOWN else f"{answer[:SHOWN]} …"
    return tag(
        "li",
        tag(
            "p",
            tag("b", when),
            " · " if ended else "",
            tag("span", ended, class_="good" if reason == "stop" else "bad"),
        ),
        tag("blockquote", shown or "(nothing)"),
    )
