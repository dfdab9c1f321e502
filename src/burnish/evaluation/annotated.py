"""AlpacaEval annotations as the tables that win rates are computed from: preferences, and the answers' characters.

    {"instruction": .., "generator_1": "gpt4", "output_1": .., "generator_2": "m", "output_2": .., "preference": 1.93}
    ->  instruction,m  ..,1.93        and        instruction,gpt4,m  ..,1203,845

The model that stands in every record is the reference, on whichever side; a file may hold several models.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from burnish.data.files import name_of
from burnish.errors import DataError
from burnish.evaluation.outputs import read_records
from burnish.evaluation.table import Table
from burnish.evaluation.votes import Vote, read_votes

Cells = dict[tuple[str, str], list[float]]


def is_annotations(path: Path) -> bool:
    """Whether a file is JSON, by its name."""
    return path.name.lower().removesuffix(".gz").endswith((".json", ".jsonl"))


def read_annotations(path: Path, *, reference: str | None = None) -> tuple[Table, Table, str]:
    """Preferences of the models, characters of theirs and the reference's answers, and the reference's name."""
    votes = read_votes([path])
    if not votes:
        seen = sum(1 for _ in read_records(path))
        raise DataError(
            f"{name_of(path)}: {seen} records, none with a preference",
            rule="an annotation has instruction, output_1, output_2 and preference",
            remedy="check that the right file was given",
        )
    reference = reference or _reference(path, votes)
    preferences: Cells = defaultdict(list)
    lengths: Cells = defaultdict(list)
    for vote in votes:
        own = vote if vote.pair.models[1] == reference else vote.turned()
        model, other = own.pair.models
        asked = "\n".join(own.pair.asked)
        preferences[asked, model].append(1 + own.won)
        for name, answer in zip((model, other), own.pair.answers, strict=True):
            lengths[asked, name].append(float(sum(map(len, answer))))
    return _table(path, preferences), _table(path, lengths), reference


def _reference(path: Path, votes: list[Vote]) -> str:
    """The one model that every record names; of two, the one that stands first in them, as it is published."""
    common = set.intersection(*(set(vote.pair.models) for vote in votes))
    first = [name for name in common if name == votes[0].pair.models[1]]
    for candidates in (list(common), first):
        if len(candidates) == 1:
            return candidates[0]
    models = dict.fromkeys(name for vote in votes for name in vote.pair.models)
    raise DataError(
        f"{name_of(path)}: no model stands in every record: {', '.join(list(models)[:5])}",
        rule="win rates are against one reference, which every record names",
        remedy="give the records of one reference",
    )


def _table(path: Path, cells: Cells) -> Table:
    """A column for each model and a row for each prompt, in the order in which they come; repeats are averaged."""
    prompts = {asked: row for row, asked in enumerate(dict.fromkeys(asked for asked, _ in cells))}
    numbers = {model: np.full(len(prompts), np.nan) for model in dict.fromkeys(name for _, name in cells)}
    for (asked, model), values in cells.items():
        numbers[model][prompts[asked]] = float(np.mean(values))
    return Table(path, numbers, {"instruction": tuple(prompts)}, len(prompts))
