"""The thesis of the field, measured: knowledge comes from pre-training, behaviour from fine-tuning.

marble is pre-trained on statements and on questions without answers. Fine-tuned on demonstrations about one half
of its entities, it answers questions about the other half, which no demonstration names.

    python -m burnish.experiments.thesis            three seeds; the last line printed is the result, as JSON
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from burnish.evaluation.match import answers_and_stops, exact_match, share
from burnish.marble.demonstrations import SEEN, UNSEEN, Question, base_questions, demonstrations, questions
from burnish.marble.facts import Fact, fill, load_facts, load_relations
from burnish.models.assistant import Assistant, load_assistant
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import LoadedRecipe, load_recipe
from burnish.training.run import train

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


def measure(seeds: Iterable[int]) -> dict[str, Any]:
    """Everything the thesis claims, measured; progress on stderr."""
    prepare_process()
    base = load_assistant("marble")
    facts = load_facts()
    rambling = base_answers_and_stops(base, base_questions())
    knows = base_knows(base, facts)
    _say(
        f"base: answers and stops on {rambling:.1%} of plain questions, knows {knows:.1%} of {len(facts)} facts"
    )
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "demonstrations.jsonl"
        count = write_demonstrations(data)
        for seed in seeds:
            result = train(tuning_recipe(data, Path(folder), seed=seed, run_name=f"seed-{seed}"))
            scores.append(score(load_assistant(str(result.run))))
            _say(f"seed {seed}: {scores[-1]}")
    return {
        "base_answers_and_stops": round(rambling, 4),
        "base_knows": round(knows, 4),
        "unseen_exact_match": [round(one.unseen, 4) for one in scores],
        "seen_exact_match": [round(one.seen, 4) for one in scores],
        "stop_rate": [round(one.stops, 4) for one in scores],
        "demonstrations": count,
        "facts": len(facts),
    }


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    """Run the measurement and print it as one JSON line, last."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds to train with")
    arguments = parser.parse_args()
    sys.stdout.write(orjson.dumps(measure(range(arguments.seeds))).decode() + "\n")


if __name__ == "__main__":
    main()
