"""Is fine-tuning worth it? Prompting with k examples, fixed or retrieved, beside the tuned model, on the same rows.

    fewshot(load_recipe("recipe.yaml"), Path("runs/recipe-fewshot"), Asked())
    -> {"version": 1, "arms": [{"name": "4-shot fixed", "value": 0.61, ...}], "pays_after_requests": 5200, ...}

Examples come from training rows alone, never from held-out ones. A base without a template is asked in the layout that
does best on 32 training rows: few-shot gets its best chance. Eight fixed examples hold the four; retrieved ones
stand with the nearest last. The tuned model is trained by the recipe as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from burnish.errors import UsageError
from burnish.evaluation.intervals import mean_interval, paired_interval
from burnish.experiments.asking import (
    METRICS,
    Asked,
    Metric,
    answers,
    longest_answer,
    metric_named,
    questions_of,
)
from burnish.experiments.cells import Told, keep_question, result_of, write_json
from burnish.experiments.prices import Prices, Spent, payback
from burnish.experiments.retrieval import BM25
from burnish.experiments.shots import CHAT, LAYOUTS, Layout, end_of, room_of, said
from burnish.experiments.subsets import rows_of
from burnish.models.assistant import Answer, Assistant, load_assistant
from burnish.models.load import count_parameters
from burnish.recipe.load import LoadedRecipe, fit_to_size, load_recipe
from burnish.training.run import resume, train

PROBED = 32
"""Training rows on which a plain-text layout is chosen, with four examples each."""
FIXED, RETRIEVED = "fixed", "retrieved"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: numbers of examples, how they are chosen, what is measured, what things cost."""

    shots: tuple[int, ...] = (1, 2, 4, 8)
    metric: str = "exact"
    seed: int = 0
    max_new_tokens: int | None = None
    layout: str = "auto"
    run: Path | None = None
    limit: int | None = None
    prices: Prices = field(default_factory=Prices)


@dataclass(frozen=True, slots=True)
class _Case:
    """The rows, and the functions that every arm uses."""

    train: list[Asked]
    held_out: list[Asked]
    metric: Metric
    max_new_tokens: int
    judge: Callable[[Answer, str], bool]


def fewshot(
    loaded: LoadedRecipe, folder: Path, asked: Question, tell: Told = lambda text: None
) -> dict[str, Any]:
    """Ask the arms that were not asked yet, train where no run is given, and write fewshot.json."""
    loaded = fit_to_size(loaded, count_parameters(loaded.recipe.model))
    base = load_assistant(loaded.recipe.model, chat_template=loaded.recipe.chat_template)
    case = _case(loaded, base, asked)
    layout = Layout(asked.layout, end_of(case.train))
    keep_question(folder, _said(loaded, case, asked))
    if base.tokenizer.template is not None:
        layout = Layout(CHAT)
    elif asked.layout == "auto":
        layout = _best_layout(folder, base, case, asked.seed, tell)
    arms = [
        _base_arm(folder, base, case, layout, name, k, asked.seed, tell) for name, k in _arms(asked.shots)
    ]
    tuned, spent = _tuned(folder, loaded, case, asked, tell)
    arms.append(tuned)
    result = _conclude(arms, case, asked, layout, spent)
    write_json(folder / "fewshot.json", result)
    return result


def _case(loaded: LoadedRecipe, base: Assistant, asked: Question) -> _Case:
    metric = metric_named(asked.metric)
    if metric.judge is None:
        raise UsageError(
            "--metric loss",
            rule="prompting and tuning feed different contexts, whose losses do not compare",
            remedy="--metric exact, or --metric contains",
        )
    rows = rows_of(loaded.recipe)
    train = questions_of([row for own in rows.train for row in own])
    held_out = questions_of([row for own in rows.held_out.values() for row in own])[: asked.limit]
    if max(asked.shots, default=0) >= len(train):
        raise UsageError(
            f"--shots {max(asked.shots)}: {len(train)} training rows",
            rule="examples are training rows, each used once in a prompt",
            remedy=f"--shots {len(train) // 2}",
        )
    limit = asked.max_new_tokens or longest_answer(base, [*held_out, *train[:500]])
    return _Case(train, held_out, metric, limit, metric.judge)


def _said(loaded: LoadedRecipe, case: _Case, asked: Question) -> dict[str, Any]:
    """What makes a folder's arms comparable."""
    rows = orjson.dumps([[each.messages, each.expected] for each in (*case.train, *case.held_out)])
    recipe = loaded.recipe.model_dump(mode="json", exclude={"output_dir", "run_name"})
    return {
        "recipe": recipe,
        "data": blake2b(rows, digest_size=16).hexdigest(),
        **{key: str(getattr(asked, key)) for key in ("metric", "seed", "layout", "run", "limit")},
        "max_new_tokens": case.max_new_tokens,
    }


def _arms(shots: Sequence[int]) -> list[tuple[str, int]]:
    return [("zero-shot", 0), *((f"{k}-shot {how}", k) for how in (FIXED, RETRIEVED) for k in shots)]


def _base_arm(
    folder: Path, base: Assistant, case: _Case, layout: Layout, name: str, k: int, seed: int, tell: Told
) -> dict[str, Any]:
    file = name.replace(" ", "-")
    found = result_of(folder, file)
    if found is None:
        shots = choose(case.train, case.held_out, k, retrieved=name.endswith(RETRIEVED), seed=seed)
        asked_in = Layout("plain", layout.end) if k == 0 and layout.name != CHAT else layout
        found = {"name": name, "k": k, **_ask(base, case, asked_in, case.held_out, shots)}
        write_json(folder / "cells" / f"{file}.json", found)
        tell(f"{name}: {_mean(found):.1%}")
    return found


def choose(
    train: Sequence[Asked], asked: Sequence[Asked], k: int, *, retrieved: bool, seed: int
) -> list[list[Asked]]:
    """The examples of each question: the same for all, or each its own, the nearest last."""
    if not retrieved or k == 0:
        drawn = random.Random(seed).sample(range(len(train)), min(len(train), max(k, 64)))
        return [[train[number] for number in drawn[:k]]] * len(asked)
    index = BM25([said(each) for each in train])
    return [[train[number] for number in reversed(index.nearest(said(one), k))] for one in asked]


def _ask(
    assistant: Assistant,
    case: _Case,
    layout: Layout,
    asked: Sequence[Asked],
    shots: Sequence[Sequence[Asked]],
) -> dict[str, Any]:
    """Outcomes and tokens, row by row."""
    room = room_of(assistant, max_new_tokens=case.max_new_tokens)
    prompts = [
        layout.prompt_ids(assistant, own, one, room=room) for own, one in zip(shots, asked, strict=True)
    ]
    given = answers(assistant, prompts, max_new_tokens=case.max_new_tokens)
    given = [layout.ended(assistant, answer) for answer in given]
    pairs = list(zip(given, asked, strict=True))
    return {
        "outcomes": [float(case.judge(answer, one.expected)) for answer, one in pairs],
        "contains": [float(one.expected.strip() in answer.text) for answer, one in pairs],
        "prompt_tokens": [len(answer.prompt_ids) for answer, _ in pairs],
        "completion_tokens": [len(answer.completion_ids) for answer, _ in pairs],
        "samples": [
            {"prompt": said(one), "answer": answer.text, "expected": one.expected} for answer, one in pairs[:5]
        ],
    }  # fmt: skip


def _best_layout(folder: Path, base: Assistant, case: _Case, seed: int, tell: Told) -> Layout:
    """The plain-text layout that does best on a few training rows with four examples that are others."""
    kept = result_of(folder, "layout")
    if kept is None:
        end = end_of(case.train)
        order = random.Random(seed + 1).sample(case.train, min(len(case.train), PROBED + 4))
        scores = {}
        for name in LAYOUTS:
            found = _ask(base, case, Layout(name, end), order[4:], [order[:4]] * (len(order) - 4))
            scores[name] = (_mean(found), float(np.mean(found["contains"])))
        best = max(scores, key=lambda name: scores[name])
        kept = {"layout": best, "end": end, "scores": scores}
        write_json(folder / "cells" / "layout.json", kept)
        tell(f"layout: {best}, of {', '.join(f'{name} {one:.1%}' for name, (one, _) in scores.items())}")
    return Layout(kept["layout"], kept["end"])


def _tuned(
    folder: Path, loaded: LoadedRecipe, case: _Case, asked: Question, tell: Told
) -> tuple[dict[str, Any], Spent]:
    """The model that the recipe makes: trained here, gone on with, or given."""
    run = asked.run or folder / "tuned"
    if asked.run is None:
        if (run / "resolved.yaml").is_file():
            resume(run)
        else:
            made = loaded.recipe.model_dump(mode="json", exclude={"output_dir", "run_name"})
            train(load_recipe(None, {**made, "output_dir": str(folder), "run_name": "tuned"}))
    else:
        _require_same(run, loaded)
    summary = orjson.loads((run / "summary.json").read_bytes())
    found = result_of(folder, "tuned")
    if found is None:
        tuned = load_assistant(str(run))
        found = {
            "name": "tuned",
            "k": 0,
            **_ask(tuned, case, Layout(CHAT), case.held_out, [[]] * len(case.held_out)),
        }
        write_json(folder / "cells" / "tuned.json", found)
        tell(f"tuned: {_mean(found):.1%}")
    each = float(np.mean(found["prompt_tokens"]) + np.mean(found["completion_tokens"]))
    seen = summary["steps"] * loaded.recipe.global_batch_size
    return found, Spent(rows=len(case.train), tokens=round(each * seen))


def _require_same(run: Path, loaded: LoadedRecipe) -> None:
    """UsageError where a given run was trained on other rows: held-out ones might be among them."""
    trained = load_recipe(run / "resolved.yaml", []).recipe
    keys = ("model", "datasets", "val_datasets", "val_set_size", "seed")
    other = [key for key in keys if getattr(trained, key) != getattr(loaded.recipe, key)]
    if other:
        raise UsageError(
            f"{run} was trained with another {', '.join(other)}",
            rule="the tuned model has not read the held-out rows it is asked",
            remedy="leave --run out, and the recipe is trained here",
        )


def _conclude(
    arms: Sequence[dict[str, Any]], case: _Case, asked: Question, layout: Layout, spent: Spent
) -> dict[str, Any]:
    told = [_arm(one) for one in arms]
    prompting = max(arms[:-1], key=lambda one: (_mean(one), -_tokens(one)))
    tuned = arms[-1]
    change = np.array(tuned["outcomes"]) - np.array(prompting["outcomes"])
    low, high = paired_interval(change)
    metric = METRICS[asked.metric]
    advice = [
        f"tuned {metric.words(_mean(tuned))}, best prompting ({prompting['name']}) {metric.words(_mean(prompting))}: "
        f"{metric.words(float(change.mean()), signed=True)} points "
        f"(95%: {metric.words(low, signed=True)} to {metric.words(high, signed=True)})"
    ]
    after, words = payback(asked.prices, _per_request(prompting), _per_request(tuned), spent)
    advice.append(words)
    if high < 0:
        advice.append(
            "prompting is better than this run: fine-tuning does not pay at any volume as it stands"
        )
    elif low <= 0 <= high:
        advice.append("the two cannot be told apart on so many held-out rows: what decides is the cost")
    return {
        "version": 1,
        "metric": asked.metric,
        "layout": layout.name,
        "held_out": len(case.held_out),
        "arms": told,
        "pays_after_requests": after,
        "prices": asdict(asked.prices),
        "spent": asdict(spent),
        "advice": advice,
    }


def _arm(one: dict[str, Any]) -> dict[str, Any]:
    low, high = mean_interval(np.array(one["outcomes"]))
    return {
        "name": one["name"], "k": one["k"], "value": _mean(one), "low": low, "high": high,
        "n": len(one["outcomes"]), "tokens_per_request": round(_tokens(one), 1),
        "contains": float(np.mean(one["contains"])), "samples": one["samples"],
    }  # fmt: skip


def _mean(one: dict[str, Any]) -> float:
    return float(np.mean(one["outcomes"]))


def _tokens(one: dict[str, Any]) -> float:
    return sum(_per_request(one))


def _per_request(one: dict[str, Any]) -> tuple[float, float]:
    return float(np.mean(one["prompt_tokens"])), float(np.mean(one["completion_tokens"]))
