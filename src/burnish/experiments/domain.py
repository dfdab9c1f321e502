"""Two stages on real medical text, beside fine-tuning alone, with and without replay.

    python -m burnish.experiments.domain ../shared/data            three seeds; the last line is the result, as JSON
    python -m burnish.experiments.domain ../shared/data --write docs/domain

A base of 0.66M parameters that knows children's stories reads two textbooks, then answers questions on them. Three
losses are measured from before the first update to the last: textbook pages it never read (domain), questions it was
never asked (answers), stories of the kind that it knows (general).

Equal steps are equal updates of fine-tuning: the second stage of every arm is the same. The stricter reading, equal
updates in all, is an arm of its own: fine-tuning alone that goes through the questions as long as both stages take.
A story is held out or replayed as a whole: a part of a story that another part was replayed of would tell the names in
it. Its end is not counted in its perplexity: the base gives its own end token e^-28, so that whoever learns to end a
text, as replay teaches too, would be better at stories than the base.
"""

from __future__ import annotations

import argparse
import gzip
import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import orjson
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.experiments.chart import Point, chart
from burnish.experiments.entry import enter
from burnish.experiments.whole import held_out_losses, uninterrupted
from burnish.recipe.load import load_recipe
from burnish.training.run import train

BASE = "tiny-lm/TinyStories-656K"
TEXTS = ("medical/openstax_anatomy_physiology_text.jsonl.gz", "medical/openstax_microbiology_text.jsonl.gz")
QUESTIONS = (
    "medical/openstax_anatomy_physiology_short.jsonl",
    "medical/openstax_microbiology_short.jsonl",
)
GENERAL = "text-general/tinystories_197kB.txt"
HELD_OUT = ("domain", "answers")
"""The held-out sources, in the order in which the recipe names them, so also their numbers in the metrics."""
MEASURED = (*HELD_OUT, "general")

READ: dict[str, Any] = {"name": "read", "learning_rate": 3e-3, "global_batch_size": 16}
ANSWER: dict[str, Any] = {"name": "answer", "learning_rate": 2e-3, "global_batch_size": 32}
SHARE = 0.3
WINDOW = 128
"""Tokens of a replayed piece: short ones reach every update."""

PIECES = (14, 3)
"""Replayed pieces to an update of each stage at that share: its rows of the stage's own are as many as without."""

LONGEST = 512
OPENING = re.compile(
    r"(Once|One day, (a|an|there|two|three)\b|There (was|were|once)\b|In an? |A long|On an? )"
)
"""How stories of the file begin: nothing else parts them from the paragraphs of the story before."""


def write_sets(data: Path, folder: Path) -> dict[str, Path]:
    """Training and held-out rows of each kind, split by what they say."""
    texts = [{"text": row["text"]} for name in TEXTS for row in _rows(data / name)]
    asked = [
        {"instruction": row["question"], "output": row["answer"]}
        for name in QUESTIONS
        for row in _rows(data / name)
    ]
    stories = [{"text": story} for story in whole_stories((data / GENERAL).read_text(encoding="utf-8"))]
    told = {}
    for name, rows, held in (("domain", texts, 16), ("answers", asked, 8), ("general", stories, 5)):
        kept = [row for row in rows if any(str(value).strip() for value in row.values())]
        apart = [_ticket(row) % held == 0 for row in kept]
        for part, wanted in (("train", False), ("held_out", True)):
            path = folder / f"{name}_{part}.jsonl"
            chosen = [row for row, is_apart in zip(kept, apart, strict=True) if is_apart == wanted]
            path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in chosen))
            told[f"{name}_{part}"] = path
    return told


def whole_stories(text: str) -> list[str]:
    """Paragraphs put together again: each story from one opening up to the next."""
    stories: list[list[str]] = []
    for paragraph in filter(str.strip, text.split("\n\n")):
        if not stories or OPENING.match(paragraph):
            stories.append([])
        stories[-1].append(paragraph)
    return ["\n\n".join(story) for story in stories]


def arms(sets: Mapping[str, Path], steps: int) -> dict[str, list[dict[str, Any]]]:
    """What is compared, each as the stages of a recipe."""
    replay = {"path": str(sets["general_train"]), "share": SHARE, "max_length": WINDOW}
    read = {**READ, "datasets": str(sets["domain_train"]), "max_steps": steps}
    answer = {**ANSWER, "datasets": str(sets["answers_train"]), "max_steps": steps}
    return {
        "SFT alone, as many SFT updates": [answer],
        "SFT alone, as many updates in all": [{**answer, "max_steps": 2 * steps}],
        "text, then SFT": [read, answer],
        "text, then SFT, with replay": [
            {**stage, "replay": replay, "global_batch_size": stage["global_batch_size"] + pieces}
            for stage, pieces in ((read, PIECES[0]), (answer, PIECES[1]))
        ],
    }


def measure(
    data: Path,
    sets: Mapping[str, Path],
    stages: Sequence[Mapping[str, Any]],
    *,
    steps: int,
    seed: int,
    out: Path,
) -> list[dict[str, float]]:
    """The held-out losses at the start, after `steps` updates, and at the end; that of stories at both ends."""
    loaded = load_recipe(
        None,
        {
            "model": str(data / BASE),
            "val_datasets": [{"path": str(sets[f"{name}_held_out"]), "name": name} for name in HELD_OUT],
            "stages": list(stages),
            "max_length": 256,
            "eval_steps": steps,
            "dtype": "float32",
            "seed": seed,
            "output_dir": str(out),
        },
    )
    result = uninterrupted(train(loaded))
    found = [{name: losses[str(k)] for k, name in enumerate(HELD_OUT)} for losses in held_out_losses(result)]
    stories = [row["text"] for row in _rows(sets["general_held_out"])]
    for place, model in ((0, data / BASE), (-1, result.final)):
        found[place]["general"] = story_loss(model, stories)
    return found


def story_loss(model: Path, stories: Sequence[str]) -> float:
    """The mean loss of the stories' tokens by plain transformers, each story by itself, its end not counted."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total, tokens = 0.0, 0
    for story in stories:
        ids = tokenizer(story, truncation=True, max_length=LONGEST, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            total += network(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return total / tokens


def study(data: Path, *, steps: int, seeds: Iterable[int]) -> dict[str, Any]:
    """Every arm with every seed: its losses at each evaluation, and what follows from them."""
    found: dict[str, list[list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = write_sets(data, Path(folder))
        for name, stages in arms(sets, steps).items():
            for seed in seeds:
                out = Path(folder) / f"{len(found)}-{seed}"
                measured = measure(data, sets, stages, steps=steps, seed=seed, out=out)
                found.setdefault(name, []).append(measured)
                print(name, seed, measured[-1], flush=True)
    return {"steps": steps, "losses": found, "verdict": verdict(found)}


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Results of different seeds as one."""
    if len({part["steps"] for part in parts}) != 1:
        raise ValueError("results of runs of different length are not joined")
    found = {name: [run for part in parts for run in part["losses"][name]] for name in parts[0]["losses"]}
    return {"steps": parts[0]["steps"], "losses": found, "verdict": verdict(found)}


def verdict(found: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> dict[str, Any]:
    """Perplexities at the end, mean and deviation over seeds, and the three claims, each seed by itself."""
    names = list(found)
    start = {kind: math.exp(found[names[0]][0][0][kind]) for kind in MEASURED}

    def ends(name: str, kind: str) -> list[float]:
        return [math.exp(run[-1][kind]) for run in found[name]]

    equal, longer, staged, replayed = names
    left = [
        (with_it - start["general"]) / (without - start["general"])
        for without, with_it in zip(ends(staged, "general"), ends(replayed, "general"), strict=True)
    ]
    return {
        "start": start,
        "perplexity": {name: {kind: _spread(ends(name, kind)) for kind in MEASURED} for name in names},
        "share_of_the_rise_in_general_perplexity_left_by_replay": {**_spread(left), "seeds": left},
        "claims": {
            "domain perplexity falls": [end < start["domain"] for end in ends(staged, "domain")],
            "answers fall more than by SFT alone, equal SFT updates": _below(found, staged, equal),
            "answers fall more than by SFT alone, equal updates in all": _below(found, staged, longer),
            "with replay the general perplexity rises less than half as much": [part < 0.5 for part in left],
        },
    }


def _below(
    found: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], first: str, second: str
) -> list[bool]:
    pairs = zip(found[first], found[second], strict=True)
    return [one[-1]["answers"] < other[-1]["answers"] for one, other in pairs]


def write_chart(result: Mapping[str, Any], folder: Path) -> None:
    """One chart for each measure: the loss before, between and after the stages."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in MEASURED:
        lines = {name: _line(runs, kind) for name, runs in result["losses"].items()}
        words = ("base", f"{result['steps']} updates", "end")
        page = chart(f"held-out loss: {kind}", "bars: standard deviation over seeds", lines, names=words)
        (folder / f"{kind}.svg").write_text(page, encoding="utf-8")


def _line(runs: Sequence[Sequence[Mapping[str, float]]], kind: str) -> list[Point]:
    """The mean over seeds at each evaluation that has the measure; a run of one stage has but two."""
    points = []
    for k, first in enumerate(runs[0]):
        if kind in first:
            values = [run[k][kind] for run in runs]
            spread = stdev(values) if len(values) > 1 else 0.0
            points.append(Point(k if len(runs[0]) == 3 else 2 * k, mean(values), spread))
    return points


def _rows(path: Path) -> list[dict[str, Any]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [orjson.loads(line) for line in raw.split(b"\n") if line]


def _ticket(row: Mapping[str, Any]) -> int:
    return int.from_bytes(blake2b(orjson.dumps(row), digest_size=4).digest())


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(mean(values), 4), "deviation": round(stdev(values), 4) if len(values) > 1 else 0.0}


def main() -> None:
    """Run the study and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder of real data sets")
    parser.add_argument("--steps", type=int, default=120, help="updates of each stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--join", type=Path, nargs="+", help="results of other seeds: no training, one verdict"
    )
    parser.add_argument("--write", type=Path, help="folder for the charts")
    given = parser.parse_args()
    if given.join:
        result = joined([orjson.loads(path.read_bytes().splitlines()[-1]) for path in given.join])
    else:
        result = study(given.data, steps=given.steps, seeds=given.seeds)
    if given.write:
        write_chart(result, given.write)
    print(orjson.dumps(result).decode())


if __name__ == "__main__":
    enter(main)
