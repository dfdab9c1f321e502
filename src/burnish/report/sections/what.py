"""What was run: in plain words, as a recipe, on which machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from burnish.report.collect import Run
from burnish.report.markup import Html, definitions, folded, join, table, tag
from burnish.report.story import Section, note, run_heading, section
from burnish.report.values import mapping, mappings, number, text
from burnish.report.words import UNKNOWN, count, decimal, large, percent

LONGEST = 300
"""Letters of one value."""

NOT_COMPARED = ("run_name", "output_dir")
METHOD_WORDS = {
    "full": "every weight may move",
    "lora": "a small low-rank correction is learnt beside frozen weights",
    "dora": "a low-rank correction and a magnitude are learnt beside frozen weights",
    "rslora": "a rank-stabilised low-rank correction is learnt beside frozen weights",
    "pissa": "a low-rank correction that starts at the weights' principal directions is learnt",
    "lora_xs": "a tiny matrix between frozen directions of the weights is learnt",
    "qlora": "a low-rank correction is learnt beside weights that are held in 4 bits",
    "qdora": "a low-rank correction and a magnitude are learnt beside weights that are held in 4 bits",
    "bottleneck": "small layers are learnt between frozen ones",
}


def what(runs: Sequence[Run]) -> Section | None:
    """The section."""
    parts: list[Html] = []
    for run in runs:
        # Of a single run the page says this at its top.
        parts += [said(run)] if len(runs) == 1 else [run_heading(runs, run), tag("p", in_words(run))]
    if len(runs) > 1:
        parts.append(differences(runs))
    parts += [machine(runs), *(whole_recipe(runs, run) for run in runs)]
    names = f"{len(runs)} runs side by side; only what differs between their recipes is listed."
    return section("what", "What was run", names if len(runs) > 1 else method(runs[0]), parts)


def method(run: Run) -> str:
    """The method in one sentence."""
    adapter = text(run.recipe.get("adapter"), "full")
    trained, all_of_it = number(run.plan.get("trainable_parameters")), number(run.plan.get("parameters"))
    share = f" ({percent(trained / all_of_it)} of the weights)" if trained and all_of_it else ""
    name = "Full fine-tuning" if adapter == "full" else f"Fine-tuning with {adapter}"
    return f"{name}: {METHOD_WORDS.get(adapter, 'the recipe says how')}{share}."


def in_words(run: Run) -> str:
    """What happened, for someone who never saw a recipe."""
    parameters = number(run.plan.get("parameters"))
    rows = mapping(run.summary.get("rows"))
    held = number(run.plan.get("held_out_rows"))
    used = number(rows.get("used"))
    learnt = max(0.0, used - (held or 0.0)) if used else number(run.plan.get("rows"))
    graded = number(run.summary.get("graded_tokens"))
    first = f"{run.model}" + (f", a model of {large(parameters)} parameters," if parameters else "")
    verb = "was pre-trained" if run.environment.get("from_scratch") is True else "was shown how to answer"
    sentences = [f"{first} {verb}" + (f" by {count(learnt, 'example')}" if learnt else "") + "."]
    if run.num_steps:
        epochs = number(run.steps[-1].get("epoch")) if run.steps else None
        passes = f" ({decimal(epochs)} passes over the data)" if epochs else ""
        of = f", of which {large(graded)} tokens were graded" if graded else ""
        sentences.append(f"It was corrected {count(run.num_steps, 'time')}{passes}{of}.")
    if held:
        sentences.append(
            f"{count(held, 'example')} {'was' if held == 1 else 'were'} kept aside and never learnt from."
        )
    return " ".join([*sentences, STATES.get(run.state, "")]).strip()


STATES = {
    "finished": "The run went to its end.",
    "early_stopping": "It stopped by itself: the examples kept aside had ceased to get better.",
    "running": "It is still running; this is how far it is.",
    "interrupted": "It was interrupted before its end; this is how far it came.",
}


def said(run: Run) -> Html:
    """The keys that somebody chose, with where they were said; all others have their defaults."""
    chosen = [
        (key, run.recipe.get(key), origin) for key, origin in run.origins.items() if not _is_default(origin)
    ]
    rows = [(tag("code", key), tag("code", _value(value)), origin) for key, value, origin in chosen]
    if not rows:
        return Html()
    return join([tag("h3", "What the recipe says"), table(("key", "value", "said in"), rows, numeric=False)])


def _is_default(origin: str) -> bool:
    return origin.startswith("default")


def differences(runs: Sequence[Run]) -> Html:
    """The keys whose values differ between the runs."""
    keys = [
        key for key in dict.fromkeys(key for run in runs for key in run.recipe) if key not in NOT_COMPARED
    ]
    told = {key: [_value(run.recipe.get(key)) for run in runs] for key in keys}
    rows = [
        (tag("code", key), *(tag("code", value) for value in values))
        for key, values in told.items()
        if len(set(values)) > 1
    ]
    head = tag("h3", "Where the recipes differ")
    if not rows:
        return join([head, note("They do not: apart from names and places the recipes are the same.")])
    same = note(f"{len(told) - len(rows)} other keys have the same value in all of them.")
    return join([head, table(("key", *(run.name for run in runs)), rows, numeric=False), same])


def machine(runs: Sequence[Run]) -> Html:
    """Versions and hardware as each run wrote them down; a row for what is known."""
    shown = (
        ("date", "date"),
        ("device", "device"),
        ("processes", "world_size"),
        ("threads", "threads"),
        ("CPU kernels", "kernels"),
        ("system", "platform"),
        *((name, name) for name in ("python", "burnish", "torch", "transformers", "peft", "tokenizers")),
    )
    rows = []
    for words, key in shown:
        values = [text(run.environment.get(key), UNKNOWN) for run in runs]
        if any(value != UNKNOWN for value in values):
            rows.append((words, *values))
    if not rows:
        return Html()
    head = tag("h3", "The machine")
    if len(runs) == 1:
        return join([head, tag("div", definitions((words, value) for words, value in rows), class_="facts")])
    same = [(row[0], row[1]) for row in rows if len(set(row[1:])) == 1]
    other = [row for row in rows if len(set(row[1:])) > 1]
    differing = table(("", *(run.name for run in runs)), other, numeric=False) if other else Html()
    return join([head, differing, tag("div", definitions(same), class_="facts") if same else Html()])


def whole_recipe(runs: Sequence[Run], run: Run) -> Html:
    """Every value used, as the run has it."""
    if not run.recipe_text:
        return Html()
    name = (
        "The whole recipe"
        + ("" if len(runs) == 1 else f" of {run.name}")
        + ", with where each value came from"
    )
    return folded(name, tag("pre", tag("code", run.recipe_text[:200_000])))


def _value(value: Any) -> str:
    """A recipe's value on one line; sources by their paths."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "path" in each for each in value):
        return ", ".join(text(each.get("name")) or text(each.get("path")) for each in mappings(value))
    if isinstance(value, dict):
        told = [f"{key}: {_value(each)}" for key, each in value.items() if each is not None]
        return ", ".join(told)[:LONGEST]
    if isinstance(value, list):
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()[:LONGEST]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return text(value, str(value))
