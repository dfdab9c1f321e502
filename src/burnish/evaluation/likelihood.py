"""What a model gives to text it is shown: loss, first choices and bits per byte of the graded tokens of each row.

    row      user "Hi" / assistant "Hello!" / user "Bye" / assistant "Bye bye."
    marks    loss (nll, weight)   token_accuracy (first choices, tokens)   bits_per_byte (bits, bytes)
             loss@answer 1, loss@answer 2, token_accuracy@answer 1, ...     where rows have several answers

The loss is training's own: sum(weight x nll) / sum(weight) over the set. Bits per byte leave out the tokens that end a
turn, on both sides, so that models with other tokenizers and templates can be set beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from burnish.chat.encode import Encoder
from burnish.data.pack import Pack, pack_all
from burnish.evaluation.figures import Marks
from burnish.models.forward import open_forward, pack_attention, why_unpacked
from burnish.models.generate import evaluating
from burnish.types import Example

TOKENS_PER_PASS = 2048
LAST_NAMED = 8
"""Answers from the ninth on are not told apart."""

Progress = Callable[[int, int | None], None]


@dataclass(slots=True)
class Seen:
    """The graded tokens of one sequence: -ln p and whether it was the first choice, in order."""

    nll: list[float]
    first: list[bool]


def read_through(
    model: PreTrainedModel | PeftModel,
    examples: Sequence[Example],
    *,
    tokens_per_pass: int = TOKENS_PER_PASS,
    progress: Progress = lambda done, total: None,
) -> list[Seen]:
    """What the model gives to every graded token of each sequence; packed where the model allows."""
    found = [Seen([], []) for _ in examples]
    numbered = [replace(example, source=number) for number, example in enumerate(examples)]
    packed = why_unpacked(model.get_base_model() if isinstance(model, PeftModel) else model) is None
    forward = open_forward(model, packed=packed)
    packs = pack_all(numbered, max_tokens=tokens_per_pass, max_rows=None if packed else 1) if examples else []
    done = 0
    with evaluating(model), pack_attention(model, packed=packed):
        for pack in packs:
            if len(pack.targets):
                _, nll, first = forward.judge(pack)
                _deal(pack, nll, first, found)
            done += len(pack.rows)
            progress(done, len(examples))
    return found


def _deal(pack: Pack, nll: torch.Tensor, first: torch.Tensor, found: list[Seen]) -> None:
    """Each target to its sequence, whose number `sources` carries; a pack keeps a sequence's targets in order."""
    for number, surprise, hit in zip(pack.sources.tolist(), nll.tolist(), first.tolist(), strict=True):
        found[number].nll.append(surprise)
        found[number].first.append(hit)


def row_marks(views: Sequence[Example], seen: Sequence[Seen], encoder: Encoder, *, positions: bool) -> Marks:
    """The marks of one row, from all its sequences; with `positions`, of each of its answers apart."""
    sums: dict[str, list[float]] = {}
    stops = encoder.stop_ids
    order = {turn: rank for rank, turn in enumerate(sorted({turn for view in views for turn in view.turns}))}
    for view, what in zip(views, seen, strict=True):
        at = [k for k, weight in enumerate(view.weights) if weight != 0.0]
        weights = np.array([view.weights[k] for k in at])
        nll, first = np.array(what.nll), np.array(what.first, dtype=np.float64)
        spoken = np.array([view.input_ids[k] not in stops for k in at], dtype=bool)
        _add(sums, "loss", float((weights * nll).sum()), float(weights.sum()))
        _add(sums, "token_accuracy", float(first.sum()), len(at))
        size = sum(
            _bytes(view, run, encoder)
            for run in _runs([k for k, is_said in zip(at, spoken, strict=True) if is_said])
        )
        _add(sums, "bits_per_byte", float(nll[spoken].sum()) / math.log(2), size)
        for name, mine in _answers(view, at, order) if positions else ():
            _add(sums, f"loss@{name}", float((weights * nll)[mine].sum()), float(weights[mine].sum()))
            _add(sums, f"token_accuracy@{name}", float(first[mine].sum()), len(mine))
    return {name: (above, below) for name, (above, below) in sums.items() if below}


def _add(sums: dict[str, list[float]], name: str, above: float, below: float) -> None:
    held = sums.setdefault(name, [0.0, 0.0])
    held[0] += above
    held[1] += below


def _runs(places: Iterable[int]) -> list[list[int]]:
    """Neighbouring places together: 4 5 6 9 10 is 4 5 6 and 9 10."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _bytes(view: Example, run: Sequence[int], encoder: Encoder) -> int:
    """How long the text of a run is: of what is decoded with it, less what is without, for a first space's sake."""
    before = encoder.decode(view.input_ids[max(0, run[0] - 4) : run[0]])
    whole = encoder.decode(view.input_ids[max(0, run[0] - 4) : run[-1] + 1])
    return len(whole.encode("utf-8", "replace")) - len(before.encode("utf-8", "replace"))


def _answers(view: Example, at: Sequence[int], order: dict[int, int]) -> list[tuple[str, list[int]]]:
    """Which graded tokens belong to which answer, where the sequence says so: a run of them for each turn."""
    runs = _runs(at)
    if len(runs) != len(view.turns):
        return []
    found, first = [], 0
    for turn, run in zip(view.turns, runs, strict=True):
        rank = order[turn] + 1
        name = f"answer {rank}" if rank <= LAST_NAMED else f"answer {LAST_NAMED + 1} and later"
        found.append((name, list(range(first, first + len(run)))))
        first += len(run)
    return found


def choice_marks(seen: Sequence[Seen], lengths: Sequence[int], right: int) -> Marks:
    """Multiple choice by likelihood: is the right answer the likeliest, by its sum of ln p, and by that per byte?

    Of two that are equally likely the first counts, so that a model that tells nothing apart gets no credit for it
    unless the right one stands first.
    """
    totals = [-sum(one.nll) for one in seen]
    by_length = [total / max(1, size) for total, size in zip(totals, lengths, strict=True)]
    best = max(range(len(totals)), key=lambda k: totals[k])
    best_by_length = max(range(len(totals)), key=lambda k: by_length[k])
    return {
        "choice_accuracy": (float(best == right), 1.0),
        "choice_accuracy_normalised": (float(best_by_length == right), 1.0),
    }
