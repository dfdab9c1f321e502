"""What training did to single tokens: a film strip of the looks, and how much the base knew already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from burnish.chat.strip import visible
from burnish.report.collect import Run
from burnish.report.figure import line_figure
from burnish.report.lines import Chart, Line
from burnish.report.markup import Html, definitions, join, tag
from burnish.report.story import Section, note, run_heading, section
from burnish.report.values import deep, mapping, mappings, number, numbers, text, texts
from burnish.report.words import count, decimal, percent

GROUPS = (("all", "all graded tokens"), ("content", "content"), ("format", "format"), ("stop", "the stop"))
MAX_LOOKS = 60
MAX_ROWS = 6
MAX_TOKENS = 160


def sharpening(runs: Sequence[Run]) -> Section | None:
    """The section."""
    parts: list[Html] = []
    for run in runs:
        if run.sharpening:
            parts += [run_heading(runs, run), superficial(run), groups(run), strip_of(run)]
    return section("sharpening", "What it sharpened", finding(runs), parts)


def finding(runs: Sequence[Run]) -> str:
    """How much of what was taught the base would have said by itself."""
    run = next((run for run in runs if run.sharpening), None)
    top1 = number(deep(run.sharpening[-1], "groups", "all", "base_top1")) if run else None
    if run is None or top1 is None:
        return "The probability of single tokens, look by look."
    first, last = (number(deep(run.sharpening[at], "groups", "all", "mean_p")) for at in (0, -1))
    rose = (
        f" Training raised their mean probability from {percent(first)} to {percent(last)}."
        if first is not None and last is not None
        else ""
    )
    return f"{percent(top1)} of the taught tokens were the base's own first choice already.{rose}"


def superficial(run: Run) -> Html:
    """The shares that were the base's first choice or among its first five, as figures."""
    last = mapping(run.sharpening[-1].get("groups"))
    facts = []
    for key, words in GROUPS:
        group = mapping(last.get(key))
        top1, top5 = number(group.get("base_top1")), number(group.get("base_top5"))
        if top1 is None:
            continue
        among = f", {percent(top5)} among its first five" if top5 is not None else ""
        rank = number(group.get("mean_rank_base"))
        ranked = f", mean rank {decimal(rank)}" if rank is not None else ""
        facts.append(
            (
                words,
                f"{percent(top1)} first choice of the base{among}{ranked} (of {count(number(group.get('n')))})",
            )
        )
    return tag("div", definitions(facts), class_="facts") if facts else Html()


def groups(run: Run) -> Html:
    """The mean probability of each group of tokens over the run, against what the base gave."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for colour, (key, words) in enumerate(GROUPS):
        found = [
            (step, p)
            for look in run.sharpening
            if (step := number(look.get("step"))) is not None
            and (p := number(deep(look, "groups", key, "mean_p"))) is not None
        ]
        if key == "content" and found and all(pair in found for pair in _of(run, "all")):
            continue
        lines.append(Line(words, found, colour, dots=True))
        rows += [[words, f"{step:,.0f}", percent(p)] for step, p in found]
    chart = Chart(lines, "update", "mean probability", percent=True, log_y=False)
    words = "On held-out rows that stay the same: how probable the model finds each kind of token that it should say."
    return line_figure(
        "Probability of the right token", words, chart, rows, ("tokens", "update", "mean probability")
    )


def _of(run: Run, key: str) -> list[tuple[float, float]]:
    pairs = (
        (number(look.get("step")), number(deep(look, "groups", key, "mean_p"))) for look in run.sharpening
    )
    return [(step, p) for step, p in pairs if step is not None and p is not None]


def looks_of(run: Run) -> list[dict[str, Any]]:
    """At most so many looks, the first and the last among them."""
    looks = [
        look for look in run.sharpening if mappings(look.get("rows")) and number(look.get("step")) is not None
    ]
    every = -(-len(looks) // MAX_LOOKS) or 1
    return looks[::every] if not looks or looks[::every][-1] is looks[-1] else [*looks[::every], looks[-1]]


def film(run: Run) -> list[dict[str, Any]]:
    """What the player plays: for each row its tokens, and their probability at each look; rows keep their tokens."""
    looks = looks_of(run)
    if not looks:
        return []
    rows = []
    for row in mappings(looks[-1].get("rows"))[:MAX_ROWS]:
        tokens = texts(row.get("tokens"))[:MAX_TOKENS]
        frames = []
        for look in looks:
            same = next(
                (each for each in mappings(look.get("rows")) if each.get("row") == row.get("row")), {}
            )
            if texts(same.get("tokens"))[:MAX_TOKENS] != tokens:
                continue
            shown = [round(min(1.0, max(0.0, p or 0.0)), 3) for p in numbers(same.get("p"))[: len(tokens)]]
            if len(shown) == len(tokens):
                frames.append({"step": int(number(look.get("step")) or 0), "p": shown})
        ranks = [
            int(rank) if rank is not None else None for rank in numbers(row.get("base_rank"))[: len(tokens)]
        ]
        kinds = [visible(kind) for kind in texts(row.get("group"))[: len(tokens)]]
        if tokens and frames:
            prompt, shown_tokens = visible(_prompt(row)), [visible(token) for token in tokens]
            rows.append(
                {"prompt": prompt, "tokens": shown_tokens, "frames": frames, "rank": ranks, "group": kinds}
            )
    return rows


def _prompt(row: dict[str, Any]) -> str:
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        return text(mappings(prompt)[-1].get("content")) if mappings(prompt) else ""
    return text(prompt)


def strip_of(run: Run) -> Html:
    """The film: each row before and after as it stands, which the page's script turns into a player."""
    rows = film(run)
    if not rows:
        return note("No rows were looked at token by token.") if run.sharpening else Html()
    drawn = [_row(row) for row in rows]
    words = "Each token is as green as it is probable. Play it, or go through the frames: one for each look."
    return join(
        [
            tag("h3", "Token by token"),
            tag("p", words),
            tag(
                "ul",
                tag("li", tag("i", class_="ramp", aria_hidden="true"), "0% to 100% probable"),
                class_="legend",
            ),
            tag("div", *drawn, class_="film", data_run=run.name),
        ]
    )


def _row(row: dict[str, Any]) -> Html:
    first, last = row["frames"][0], row["frames"][-1]
    states = [_state(row, first, "first")] + ([_state(row, last, "last")] if last is not first else [])
    return tag("div", tag("p", row["prompt"], class_="context"), *states, class_="take")


def _state(row: dict[str, Any], frame: dict[str, Any], which: str) -> Html:
    when = "before training" if frame["step"] == 0 else f"after update {frame['step']:,}"
    tokens = [
        tag("span", token.replace("\n", "⏎"), class_=f"heat h{round(10 * p)}", title=f"{percent(p)} probable")
        for token, p in zip(row["tokens"], frame["p"], strict=True)
    ]
    return tag(
        "div", tag("p", when, class_="when"), tag("div", *tokens, class_="heats"), class_=f"state {which}"
    )
