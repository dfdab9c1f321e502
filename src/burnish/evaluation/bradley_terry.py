"""Strengths of many models out of pairs (Bradley and Terry 1952): a model wins against another with probability
1 / (1 + exp(its strength - mine)); a tie is half a win for each.

    battles("a", "b", 1.0), ("b", "c", 0.5), ...   ->   {"a": 0.61, "b": -0.13, "c": -0.48}, each with an interval
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish.errors import DataError
from burnish.evaluation.requirements import require

RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Battle:
    """One comparison: the share that `model` won of it against `other` (1, 0.5, 0), on the prompt it was about."""

    model: str
    other: str
    won: float
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Strength:
    """A model's strength in logits around the mean of all, with its 95% interval."""

    strength: float
    interval: tuple[float, float]
    battles: int

    def against(self, other: Strength) -> float:
        """The probability of winning against another model."""
        return 1 / (1 + math.exp(other.strength - self.strength))


def strengths(battles: Sequence[Battle], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Strength]:
    """Each model's strength, from strong to weak; intervals by bootstrap over prompts.

    A model that won all of its battles, or lost all, would be infinitely strong or weak: each model that met another
    is given one tie against a model of mean strength beside its battles.
    """
    models = sorted({name for battle in battles for name in (battle.model, battle.other)})
    _require_connected(models, battles)
    number = {model: place for place, model in enumerate(models)}
    prompts: dict[str, list[Battle]] = defaultdict(list)
    for place, battle in enumerate(battles):
        prompts[battle.prompt or str(place)].append(battle)
    groups = [_counted(group, number) for group in prompts.values()]
    seen = _fit(np.sum(groups, axis=0))
    random = np.random.Generator(np.random.Philox(seed))
    stacked = np.array(groups).reshape(len(groups), -1)
    drawn = []
    for _ in range(resamples):
        weights = random.multinomial(len(groups), np.full(len(groups), 1 / len(groups)))
        drawn.append(_fit((weights @ stacked).reshape(len(models), len(models))))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    fought = np.sum(groups, axis=0)
    found = {
        model: Strength(
            float(seen[m]),
            (float(low[m]), float(high[m])),
            round(float(fought[m].sum() + fought[:, m].sum())),
        )
        for model, m in number.items()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].strength))


def _counted(battles: Iterable[Battle], number: dict[str, int]) -> np.ndarray:
    """Wins of row over column."""
    wins = np.zeros((len(number), len(number)))
    for battle in battles:
        wins[number[battle.model], number[battle.other]] += battle.won
        wins[number[battle.other], number[battle.model]] += 1 - battle.won
    return wins


def _fit(wins: np.ndarray) -> np.ndarray:
    """evalica's strengths on counted wins, as logits with mean 0; the last model is the one that all tie with once."""
    evalica: Any = require("evalica", extra="arena")
    size = len(wins)
    rows, columns = np.nonzero(wins)
    ghost = np.full(size, size)
    result = evalica.bradley_terry(
        [*rows.tolist(), *range(size)],
        [*columns.tolist(), *ghost.tolist()],
        [evalica.Winner.X] * len(rows) + [evalica.Winner.Draw] * size,
        weights=[*wins[rows, columns].tolist(), *[1.0] * size],
        tolerance=1e-9,
        limit=10_000,
    )
    scores = result.scores
    logits = np.log([float(scores[model]) for model in range(size)])
    return np.asarray(logits - logits.mean())


def _require_connected(models: Sequence[str], battles: Sequence[Battle]) -> None:
    """DataError where two groups of models never met: nothing says which group is stronger."""
    met: dict[str, set[str]] = defaultdict(set)
    for battle in battles:
        met[battle.model].add(battle.other)
        met[battle.other].add(battle.model)
    reached, ahead = set(models[:1]), list(models[:1])
    while ahead:
        new = met[ahead.pop()] - reached
        reached |= new
        ahead.extend(new)
    if len(models) < 2 or len(reached) < len(models):
        apart = sorted(set(models) - reached)
        raise DataError(
            f"{', '.join(apart[:5])} never met {', '.join(sorted(reached)[:5])}"
            if apart
            else "fewer than two models",
            rule="strengths compare models that met, or met others that did",
            remedy="add pairs between the groups",
        )
