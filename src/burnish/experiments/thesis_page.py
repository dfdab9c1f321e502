"""The thesis as a page: docs/thesis.md and docs/thesis.svg, from what was measured and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from burnish.experiments.curve_plot import plot
from burnish.experiments.findings import number

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_page(result: Mapping[str, Any], folder: Path) -> None:
    """Draw the curve, and put the tables between the markers of thesis.md; a page without markers gets them last."""
    arms = {one["name"]: one["value"] for one in result["fewshot"]["arms"] if one["k"]}
    best = max(arms, key=lambda name: arms[name])
    picture = plot(
        result["curve"],
        title="marble: what demonstrations are worth, on entities that none of them names",
        levels={f"few-shot, best of {len(arms)}": arms[best]},
        x_name="demonstrations (about the other half of the entities)",
    )
    (folder / "thesis.svg").write_text(picture, encoding="utf-8")
    page = folder / "thesis.md"
    before = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    if BEGIN not in before:
        before += f"\n{BEGIN}\n{END}\n"
    head, _, rest = before.partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n\n{measured(result)}\n\n{END}{tail}", encoding="utf-8")


def measured(result: Mapping[str, Any]) -> str:
    """Every part under a heading of its own, with what the verbs say of it."""
    held_out = result["curve"]["held_out"]
    parts = {
        f"Base, few-shot, tuned: {held_out} questions about unseen entities": [
            arms_table(result), _listed(result["fewshot"]["advice"]),
        ],
        "How many demonstrations are enough": [
            "![Exact match over the number of demonstrations, with its fitted laws](thesis.svg)",
            curve_table(result), plateau_table(result), _listed(result["curve"]["advice"]),
        ],
        "What the base ranked first already": [sharpening_table(result)],
        "What it cost: forgetting with and without replay, LoRA against full": [tuning_table(result)],
    }  # fmt: skip
    return "\n\n".join(f"## {title}\n\n" + "\n\n".join(texts) for title, texts in parts.items())


def arms_table(result: Mapping[str, Any]) -> str:
    """Base, few-shot and tuned on unseen entities."""
    lines = [
        "| asked on unseen entities | exact match | 95% | contains the answer | tokens a request |",
        "|---|---|---|---|---|",
    ]
    for one in result["fewshot"]["arms"]:
        lines.append(
            f"| {one['name']} | {one['value']:.1%} | {one['low']:.1%} to {one['high']:.1%} | {one['contains']:.1%} "
            f"| {one['tokens_per_request']:.0f} |"
        )
    return "\n".join(lines)


def curve_table(result: Mapping[str, Any]) -> str:
    """Exact match by size and rule, seeds averaged."""
    sizes = result["curve"]["sizes"]
    rows = sorted({one["rows"] for own in sizes.values() for one in own})
    lines = [
        "| demonstrations | " + " | ".join(f"equal {rule}" for rule in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for size in rows:
        cells = []
        for own in sizes.values():
            one = next((each for each in own if each["rows"] == size), None)
            cells.append(_cell(one, result["seeds"]))
        lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(one: Mapping[str, Any] | None, seeds: int) -> str:
    """A size's mean with its interval, and how many trainings it is of where some are missing."""
    if one is None:
        return "not measured"
    fewer = f", {one['seeds']} of {seeds} seeds" if one["seeds"] < seeds else ""
    return f"{one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%}{fewer})"


def plateau_table(result: Mapping[str, Any]) -> str:
    """The fitted laws: where they end, and when they are nearly there."""
    lines = [
        "| law | form | plateau | 95% | 95% of the way to it with | 95% |",
        "|---|---|---|---|---|---|",
    ]
    for rule, one in result["curve"]["fit"].items():
        low, high = one["interval"]
        first, last = one["rows_at_95_interval"]
        lines.append(
            f"| equal {rule} | {one['form']} | {one['plateau']:.1%} | {low:.1%} to {high:.1%} "
            f"| {number(one['rows_at_95'])} demonstrations | {number(first)} to {number(last)} |"
        )
    return "\n".join(lines)


def sharpening_table(result: Mapping[str, Any]) -> str:
    """What the base ranked first already."""
    lines = [
        "| graded tokens of unseen answers | n | base's first choice, in the chat template | first five "
        "| first choice, in plain text | first five |",
        "|---|---|---|---|---|---|",
    ]
    chat, plain = result["sharpening"]["chat"], result["sharpening"]["plain"]
    for group, one in chat.items():
        other = plain[group]
        lines.append(
            f"| {group} | {one['n']:,} | {one['first']:.1%} | {one['top5']:.1%} | {other['first']:.1%} "
            f"| {other['top5']:.1%} |"
        )
    return "\n".join(lines)


def tuning_table(result: Mapping[str, Any]) -> str:
    """Full, replay, LoRA: behaviour, and loss on the base's own text."""
    lines = [
        "| 1,000 demonstrations | seen, by seed | unseen, by seed | answers that stop | loss on the base's text |",
        "|---|---|---|---|---|",
    ]
    for name, runs in result["arms"].items():
        before = runs[0]["text_loss_before"]
        after = mean(one["text_loss"] for one in runs)
        lines.append(
            f"| {name} | {_seeds(runs, 'seen')} | {_seeds(runs, 'unseen')} | {_seeds(runs, 'stops')} "
            f"| {before:.3f} -> {after:.3f} ({after - before:+.3f}) |"
        )
    return "\n".join(lines)


def _listed(said: Sequence[str]) -> str:
    """What the verbs say of it."""
    return "\n".join(f"- {sentence}" for sentence in said)


def _seeds(runs: Sequence[Mapping[str, float]], key: str) -> str:
    return " / ".join(f"{one[key]:.1%}" for one in runs)
