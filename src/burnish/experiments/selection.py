"""Does selecting rows help? 1,000 chosen rows against 1,000 drawn ones, the same training, over seeds.

    python -m burnish.experiments.selection --data ../shared/data/alpaca/alpaca.jsonl \\
        --model ../shared/data/tiny-lm/TinyStories-656K          the last line printed is the result, as JSON

Per seed: 500 rows are held out, of the others 1,000 are chosen in each way, a model is trained on them with the same
recipe, and its loss on the held-out rows is taken. Differences are within seeds, their interval is Student's.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from burnish.curation.items import Input, Item, read_items
from burnish.curation.score import exchange
from burnish.curation.select import Points, select, tf_idf
from burnish.curation.texts import response_of
from burnish.evaluation.row_scores import ModelScorer
from burnish.experiments.entry import enter
from burnish.experiments.whole import uninterrupted
from burnish.models.tokenizer import load_chat_tokenizer
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe
from burnish.training.run import train

HELD_OUT = 500
NEIGHBOURS = 40
SCORED_AT_ONCE = 256
STUDENT_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5% quantiles of Student's t for 1 to 9 degrees of freedom."""

TRAINING: dict[str, Any] = {
    "learning_rate": 1e-3,
    "num_epochs": 3,
    "global_batch_size": 16,
    "max_length": 512,
}


@dataclass(frozen=True)
class Pool:
    """The rows that may be chosen: their records, points and qualities."""

    items: Sequence[Item]
    points: Points
    quality: Sequence[float | None]
    lengths: Sequence[int]
    """Tokens of each answer."""


Choose = Callable[[Pool, Sequence[int], int, int], list[int]]
"""Chooses among the rows with these indices, so many, by a seed; returns indices."""


def at_random(pool: Pool, among: Sequence[int], number: int, seed: int) -> list[int]:
    """Drawn rows."""
    draw = np.random.default_rng([seed, 1])
    return [among[k] for k in draw.permutation(len(among))[:number]]


def by_facility(weight: float) -> Choose:
    """Facility location over TF-IDF, mixed with so much quality."""

    def choose(pool: Pool, among: Sequence[int], number: int, seed: int) -> list[int]:
        chosen = select(
            pool.points[list(among)],
            number,
            quality=[pool.quality[k] for k in among],
            method="facility",
            quality_weight=weight,
            seed=seed,
        )
        return [among[one.index] for one in chosen]

    return choose


def as_long_as(chosen_by: Choose) -> Choose:
    """Drawn rows whose answers are as long as those that another way chooses: length without the choice.

    In place of each chosen row stands one drawn from the `NEIGHBOURS` rows nearest to it in length that are left,
    itself among them.
    """

    def choose(pool: Pool, among: Sequence[int], number: int, seed: int) -> list[int]:
        draw = np.random.default_rng([seed, 2])
        left = sorted(among, key=lambda k: (pool.lengths[k], k))
        drawn = []
        for k in draw.permutation(chosen_by(pool, among, number, seed)).tolist():
            place = bisect_left(left, pool.lengths[k], key=lambda other: pool.lengths[other])
            first = max(0, min(place - NEIGHBOURS // 2, len(left) - NEIGHBOURS))
            drawn.append(left.pop(first + int(draw.integers(min(NEIGHBOURS, len(left))))))
        return drawn

    return choose


ARMS: dict[str, Choose] = {
    "random": at_random,
    "diverse": by_facility(0.0),
    "selected": by_facility(0.5),
    "as long": as_long_as(by_facility(0.5)),
}
"""`diverse` is cover alone; `selected` is cover and IFD by the base model, half and half; `as long` is drawn rows with
the lengths of `selected`."""


def read_pool(data: str, model: str, *, score: bool) -> Pool:
    """All rows of a file, each content once, with TF-IDF points and, where wanted, IFD by the base model."""
    found: dict[str, Item] = {}
    for item in read_items([Input(data)]):
        if isinstance(item, Item):
            found.setdefault(item.key, item)
    items = list(found.values())
    quality: list[float | None] = [None] * len(items)
    if score:
        scorer = ModelScorer(model)
        quality = []
        for start in range(0, len(items), SCORED_AT_ONCE):
            values = scorer.score(items[start : start + SCORED_AT_ONCE])
            # above 1 the prompt makes the answer harder to say: such rows are noise (Li et al., 2023)
            ifds = [value["ifd"] if value else None for value in values]
            quality += [ifd if ifd is not None and ifd < 1 else None for ifd in ifds]
    tokenizer = load_chat_tokenizer(model).tokenizer
    answers = tokenizer([response_of(item.row.content) for item in items], add_special_tokens=False)
    lengths = [len(ids) for ids in answers["input_ids"]]
    return Pool(items, tf_idf([_asked(item) for item in items]), quality, lengths)


def measure(
    data: str, model: str, *, seeds: Sequence[int], number: int, arms: Sequence[str]
) -> dict[str, Any]:
    """Held-out loss by arm and seed, and the difference of any two arms; progress on stderr."""
    prepare_process()
    pool = read_pool(data, model, score=not {"selected", "as long"}.isdisjoint(arms))
    losses: dict[str, list[float]] = {arm: [] for arm in arms}
    tokens: dict[str, list[int]] = {arm: [] for arm in arms}
    for seed in seeds:
        order = np.random.default_rng([seed, 0]).permutation(len(pool.items)).tolist()
        held_out, among = order[:HELD_OUT], sorted(order[HELD_OUT:])
        for arm in arms:
            chosen = ARMS[arm](pool, among, number, seed)
            loss, graded = _train(pool, chosen, held_out, model, seed)
            losses[arm].append(loss)
            tokens[arm].append(graded)
            sys.stderr.write(f"seed {seed} {arm}: held-out loss {loss:.4f}, {graded:,} graded tokens\n")
    return {
        "rows": len(pool.items),
        "number": number,
        "held_out_loss": losses,
        "graded_tokens": tokens,
        "differences": {
            f"{one} - {other}": paired_interval(losses[one], losses[other])
            for one, other in itertools.combinations(reversed(arms), 2)
        },
    }


def paired_interval(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """The mean of first - second and its 95% interval (Student's t on the pairs)."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return {"mean": mean, "low": -math.inf, "high": math.inf}
    quantile = STUDENT_95[len(differences) - 2] if len(differences) <= len(STUDENT_95) + 1 else 1.96
    half = quantile * statistics.stdev(differences) / math.sqrt(len(differences))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _train(
    pool: Pool, chosen: Sequence[int], held_out: Sequence[int], model: str, seed: int
) -> tuple[float, int]:
    """The loss on the held-out rows after training on the chosen ones, and the tokens graded on the way."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, rows in (("train", chosen), ("held", held_out)):
            lines = [orjson.dumps(pool.items[k].record) + b"\n" for k in rows]
            (place / f"{name}.jsonl").write_bytes(b"".join(lines))
        recipe = {
            **TRAINING,
            "model": model,
            "datasets": str(place / "train.jsonl"),
            "val_datasets": str(place / "held.jsonl"),
            "output_dir": folder,
            "run_name": "run",
            "seed": seed,
        }
        result = uninterrupted(train(load_recipe(None, recipe)))
    if result.eval_loss is None:
        raise AssertionError("a run with val_datasets has a held-out loss")
    return result.eval_loss, result.graded_tokens


def _asked(item: Item) -> str:
    pair = exchange(item.row.content)
    return str(pair[0][-1]["content"]) if pair and pair[0] else ""


def main() -> None:
    """Run the measurement and print it as one JSON line, last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="rows to choose from")
    parser.add_argument("--model", required=True, help="base model to train, and to score with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--number", type=int, default=1000, help="rows chosen")
    parser.add_argument("--arms", default="random,as long,selected", help=f"of {', '.join(ARMS)}")
    words = parser.parse_args()
    result = measure(
        words.data, words.model, seeds=words.seeds, number=words.number, arms=words.arms.split(",")
    )
    sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    enter(main)
