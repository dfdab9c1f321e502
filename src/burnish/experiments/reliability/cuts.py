"""F9: one update is a function of its rows alone: how they are cut, packed, shared and ordered changes nothing.

Each cell computes loss and gradient of one batch twice, cut as the cell says and one document at a time, and then
the update that follows from it. Ranks are not part of the grid: burnish trains on one device so far.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.data.pack import pack_all, total_weight
from burnish.experiments.reliability.bench import make_model, make_recipe, make_rows
from burnish.experiments.reliability.outcome import Outcome
from burnish.models.forward import Forward, open_forward, pack_attention
from burnish.training.run import prepare
from burnish.training.session import Session, lay_out
from burnish.types import Example

MOST = 1e-6
MICRO: tuple[Any, ...] = (1, 2, 3, 5, "auto")
LAYOUTS = ("prefixes shared", "packed", "one by one")
SMOOTHING, CLIP, ROWS = (0.0, 0.1), (None, 0.5), (8, 7, 5, 1, 2)


def cut_invariance(place: Path, *, seed: int, trials: int = 300) -> Outcome:
    """F9: cells of micro-batch x layout x label smoothing x clipping x rows; each draws rows of its own."""
    outcome = Outcome("F9", "one update, cut differently (fp32, relative)", seed)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    cells = list(product(MICRO, LAYOUTS, SMOOTHING, CLIP, ROWS))
    rng.shuffle(cells)
    asked = make_recipe(place, "cuts", make_model(place / "model"), [make_rows(place / "rows.jsonl")])
    session = prepare(asked.recipe)
    reference = open_forward(session.model, packed=False)
    largest = 0.0
    for micro, layout, smoothing, clip, rows in (cells * (1 + trials // len(cells)))[:trials]:
        examples = _batch(session, rng, rows)
        keys = {"label_smoothing": smoothing}
        one = _update(session, reference, [[example] for example in examples], clip, keys)
        shuffled = rng.sample(examples, len(examples))
        recipe = session.recipe.model_copy(
            update={"micro_batch_size": micro, "share_prefixes": layout == "prefixes shared"}
        )
        packs = lay_out(shuffled, recipe, vocab_size=len(session.tokenizer), packed=layout != "one by one")
        forward = reference if layout == "one by one" else session.forward
        other = _gradient(session, forward, packs, clip, keys)
        apart = _apart(one, other)
        largest = max(largest, apart)
        said = f"micro {micro}, smoothing {smoothing}, clip {clip}, {rows} rows: {apart:.2e} apart"
        outcome.note(layout, said if apart > MOST else None)
    outcome.margin = f"largest difference {largest:.1e}"
    return outcome


def _batch(session: Session, rng: random.Random, rows: int) -> list[Example]:
    chosen = rng.sample(range(len(session.data.train)), rows)
    return [example for row in chosen for example in session.data.train[row]]


def _update(
    session: Session, forward: Forward, cut: list[list[Example]], clip: float | None, keys: dict[str, float]
) -> dict[str, Tensor]:
    packs = [pack for examples in cut for pack in pack_all(examples, max_tokens=4096, max_rows=1)]
    return _gradient(session, forward, packs, clip, keys)


def _gradient(
    session: Session, forward: Forward, packs: list[Any], clip: float | None, keys: dict[str, float]
) -> dict[str, Tensor]:
    """Loss and the clipped gradient of a batch, summed over packs and divided once."""
    session.masters.zero_grad()
    summed = torch.zeros(())
    with pack_attention(session.model, packed=forward.packed):
        for pack in packs:
            part, _ = forward.loss(pack, **keys)
            part.backward()  # type: ignore[no-untyped-call]
            summed = summed + part.detach()
    over = total_weight(packs)
    norm = session.masters.clip(clip, over=over)
    named = {name: p.grad.clone() for name, p in session.masters.parameters.items() if p.grad is not None}
    session.masters.zero_grad()
    return {**named, "loss": summed / over, "norm": norm}


def _apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """How far two gradients are apart, as a share of the whole gradient, and two losses as a share of the loss."""
    names = [name for name in one if name not in ("loss", "norm")]
    if set(one) != set(other):
        return float("inf")
    length = float(torch.stack([one[name].double().norm() for name in names]).norm())
    between = float(
        torch.stack([(one[name].double() - other[name].double()).norm() for name in names]).norm()
    )
    return max(between / length, *(_relative(one[name], other[name]) for name in ("loss", "norm")))


def _relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs() / one.abs())


def planted(place: Path, *, seed: int) -> Iterator[tuple[str, float]]:
    """Defects that the grid must see: a mean of means, and a batch that lost a row."""
    rng = random.Random(seed)
    asked = make_recipe(place, "planted", make_model(place / "model"), [make_rows(place / "rows.jsonl")])
    session = prepare(asked.recipe)
    reference = open_forward(session.model, packed=False)
    examples = _batch(session, rng, 8)
    whole = _update(session, reference, [[example] for example in examples], None, {})
    halves = [
        _update(session, reference, [[e] for e in part], None, {}) for part in (examples[:4], examples[4:])
    ]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in whole}
    yield "mean of means", _apart(whole, mean)
    yield "a row lost", _apart(whole, _update(session, reference, [[e] for e in examples[1:]], None, {}))
