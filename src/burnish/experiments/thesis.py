"""The thesis of the field, measured: knowledge comes from pre-training, behaviour from fine-tuning.

marble is pre-trained on statements and on questions without answers. Fine-tuned on demonstrations about one half
of its entities, it answers questions about the other half, which no demonstration names.

    python -m burnish.experiments.thesis build/thesis --write docs      three seeds; the last line printed is JSON

Every part lies in a file of its own below the folder; what is there is not computed again, and a killed training goes
on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from burnish.checkpoint.place import discard
from burnish.data.rows import read_rows
from burnish.evaluation.match import answers_and_stops, exact_match, share
from burnish.experiments import curve as curves
from burnish.experiments import fewshot as prompting
from burnish.experiments.asking import row_losses
from burnish.experiments.cells import result_of, starting_assistant, write_json
from burnish.experiments.entry import enter
from burnish.experiments.first_choices import first_choices
from burnish.experiments.thesis_data import write_sets
from burnish.experiments.thesis_page import write_page
from burnish.marble.demonstrations import SEEN, UNSEEN, Question, base_questions, demonstrations, questions
from burnish.marble.facts import Fact, fill, load_facts, load_relations
from burnish.models.assistant import Assistant, load_assistant
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import LoadedRecipe, load_recipe
from burnish.training.run import resume, train
from burnish.types import Row

BATCH = 64
VALUE_TOKENS = 16
ANSWER_TOKENS = 48
RAMBLING_TOKENS = 96

TUNING: dict[str, Any] = {
    "model": "marble",
    "learning_rate": 5e-4,
    "num_epochs": 4,
    "global_batch_size": 16,
    "max_length": 256,
}
"""How marble becomes an assistant; docs/lab_notes.md has what else was tried."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A tuned model on both halves: exact matches, and how many of all answers ended by themselves."""

    seen: float
    unseen: float
    stops: float


def write_demonstrations(path: Path, number: int | None = None) -> int:
    """Write the demonstrations as messages JSONL; returns how many there are."""
    rows = demonstrations() if number is None else demonstrations(number)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return len(rows)


def tuning_recipe(data: Path, output_dir: Path, *, seed: int, **more: Any) -> LoadedRecipe:
    """The recipe that turns marble into an assistant."""
    return load_recipe(
        None, {**TUNING, "datasets": str(data), "output_dir": str(output_dir), "seed": seed, **more}
    )


def base_knows(base: Assistant, facts: Sequence[Fact]) -> float:
    """The share of facts that the base completes, in wordings that its corpus does not hold."""
    cases = [
        (fill(wording, fact).rstrip(), fact.value)
        for fact in facts
        for wording in load_relations()[fact.relation].held_out
    ]
    answers = base.answer([text for text, _ in cases], max_new_tokens=VALUE_TOKENS, batch_size=BATCH)
    return share([states(answer.text, value) for answer, (_, value) in zip(answers, cases, strict=True)])


def states(continuation: str, value: str) -> bool:
    """Whether a continuation says the value before its sentence ends: " kind of bird. The ..." states "bird"."""
    line = continuation.strip().split("\n")[0]
    found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", line)
    return found is not None and re.search(r"[.!?]\s", line[: found.start()]) is None


def base_answers_and_stops(base: Assistant, asked: Sequence[Question]) -> float:
    """The share of plain questions to which the base behaves as an assistant would."""
    answers = base.answer([q.text for q in asked], max_new_tokens=RAMBLING_TOKENS, batch_size=BATCH)
    return share([answers_and_stops(answer, q.fact.value) for answer, q in zip(answers, asked, strict=True)])


def score(tuned: Assistant, *, number: int | None = None) -> Scores:
    """Ask about both halves; of `number` questions each, or one for every fact."""
    shares: dict[str, float] = {}
    stops: list[bool] = []
    for half in (SEEN, UNSEEN):
        asked = questions(half, number=number)
        answers = tuned.answer([q.text for q in asked], max_new_tokens=ANSWER_TOKENS, batch_size=BATCH)
        shares[half] = share(
            [exact_match(answer, q.answer) for answer, q in zip(answers, asked, strict=True)]
        )
        stops += [answer.finish_reason == "stop" for answer in answers]
    return Scores(shares[SEEN], shares[UNSEEN], share(stops))


SIZES = (10, 30, 100, 300, 1000, 3000)
STEPS = 125
"""Updates of each size under equal steps: what four epochs make of 500 rows."""

ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, replay": {"replay": 0.3},
    "lora": {"adapter": "lora", "lora_r": 32, "learning_rate": 2e-3},
}
"""What is compared on 1,000 demonstrations; replay is the share of graded tokens that is text of the base's kind."""

SCORED = 400
"""Unseen answers whose tokens are ranked."""


def measure(folder: Path, *, seeds: int, sizes: Sequence[int] = SIZES, steps: int = STEPS) -> dict[str, Any]:
    """Everything the thesis claims, measured; progress on stderr."""
    prepare_process()
    sets = write_sets(folder / "data")
    demonstrations = folder / "data" / "demonstrations.jsonl"
    count = write_demonstrations(demonstrations)
    result: dict[str, Any] = {"seeds": seeds, "demonstrations": count, "facts": len(load_facts())}
    result["base"] = _kept(folder, "base", measure_base)
    result["sharpening"] = _kept(
        folder, "sharpening", lambda: first_choices(questions(UNSEEN, number=SCORED))
    )
    told = {
        "datasets": str(demonstrations), "val_datasets": sets["unseen"], "seed": 0, "save_steps": 60,
    }  # fmt: skip
    shots = prompting.Question(metric="exact", max_new_tokens=24)
    result["fewshot"] = prompting.fewshot(
        load_recipe(None, {**TUNING, **told}), folder / "fewshot", shots, _say
    )
    result["arms"] = measure_arms(folder, demonstrations, sets, seeds=range(seeds))
    told = {"datasets": sets["datasets"], "val_datasets": sets["unseen"], "seed": 0}
    asked = curves.Asked(sizes=tuple(sizes), seeds=seeds, steps=steps, jobs=1)
    result["curve"] = curves.curve(load_recipe(None, {**TUNING, **told}), folder / "curve", asked, _say)
    return result


def measure_base() -> dict[str, float]:
    """What marble does before any demonstration."""
    base = load_assistant("marble")
    return {
        "answers_and_stops": base_answers_and_stops(base, base_questions()),
        "knows": base_knows(base, load_facts()),
    }


def measure_arms(
    folder: Path, demonstrations: Path, sets: dict[str, Any], *, seeds: Iterable[int]
) -> dict[str, list[dict[str, float]]]:
    """Ways of tuning on the same demonstrations: behaviour on both halves, and the loss on the base's own text."""
    text = _text_rows(sets["text_held_out"])
    start = _kept(folder, "text-before", lambda: {"loss": _text_loss(starting_assistant("marble"), text)})
    found: dict[str, list[dict[str, float]]] = {}
    for name, more in ARMS.items():
        told = dict(more)
        if "replay" in told:
            told["replay"] = {"path": sets["text_train"], "share": told["replay"], "max_length": 64}
        for seed in seeds:
            cell = f"{name.replace(', ', '-')}-seed-{seed}"
            recipe = tuning_recipe(
                demonstrations, folder / "runs", seed=seed, run_name=cell, save_steps=60, **told
            )
            one = _kept(folder, cell, partial(_tune, recipe, folder / "runs" / cell, text))
            found.setdefault(name, []).append({**one, "text_loss_before": start["loss"]})
    return found


def _tune(recipe: LoadedRecipe, run: Path, text: Sequence[Row]) -> dict[str, float]:
    """Train, or go on, then ask both halves and read the text; the model is let go."""
    result = resume(run) if (run / "resolved.yaml").is_file() else train(recipe)
    tuned = load_assistant(str(run))
    scores = score(tuned)
    told = {"seen": scores.seen, "unseen": scores.unseen, "stops": scores.stops, "updates": result.steps}
    told["text_loss"] = _text_loss(tuned, text)
    discard(run)
    return told


def _text_rows(path: str) -> list[Row]:
    return read_rows(load_recipe(None, {"model": "marble", "datasets": path}).recipe).train


def _text_loss(assistant: Assistant, rows: Sequence[Row]) -> float:
    losses = row_losses(assistant, rows)
    return sum(losses) / len(losses)


def _kept(folder: Path, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part came to, computed once."""
    found = result_of(folder, name)
    if found is None:
        found = compute()
        write_json(folder / "cells" / f"{name}.json", found)
        _say(f"{name}: {dict(islice(found.items(), 5))}")
    return found


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """Run the measurement and print it as one JSON line, last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("build/thesis"), help="where cells are kept"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds to train with")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="demonstrations along the curve")
    parser.add_argument("--write", type=Path, help="folder for thesis.md and thesis.svg")
    given = parser.parse_args()
    result = measure(given.folder, seeds=given.seeds, sizes=[int(each) for each in given.sizes.split(",")])
    write_json(given.folder / "thesis.json", result)
    if given.write:
        write_page(result, given.write)
    sys.stdout.write(orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")


if __name__ == "__main__":
    enter(main)
