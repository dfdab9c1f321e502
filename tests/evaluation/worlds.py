"""Made-up leaderboards whose truth is known: what each model would win at the reference's length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from burnish.evaluation.length_control import Lengths, length_advantage

Array = NDArray[np.float64]


def sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits)))


@dataclass
class World:
    """`num_models` models, then the reference told to be brief, and wordy; prices near one logit."""

    seed: int
    num_models: int = 30
    num_prompts: int = 800

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        size = (self.num_prompts, self.num_models + 2)
        self.reference = np.exp(self.random.normal(7.4, 0.6, self.num_prompts))
        looks = (np.log(self.reference) - 7.4) / 0.6
        self.ease = 0.5 * looks + 1.1 * self.random.normal(size=self.num_prompts)
        self.skill = np.r_[self.random.normal(-1.8, 1.4, self.num_models), 0.0, 0.0]
        self.slope = np.r_[np.clip(self.random.normal(1, 0.2, self.num_models), 0.4, 2), 0.0, 0.0]
        self.price = np.r_[self.random.normal(1.1, 0.2, self.num_models), 1.2, 1.2]
        ratio = np.r_[np.exp(self.random.normal(-0.4, 0.4, self.num_models)), 0.55, 1.25]
        own = np.exp(self.random.normal(0, 0.4, size))
        self.written = np.maximum(20, self.reference[:, None] ** 0.8 * 4.4 * ratio * own)
        advantage = length_advantage(self.lengths)
        base = self.skill + self.slope * self.ease[:, None]
        self.wins = (self.random.random(size) < sigmoid(base + self.price * advantage)).astype(float)
        self.truth = sigmoid(base).mean(axis=0)
        names = [f"model-{m}" for m in range(self.num_models)]
        self.names = [*names, "gpt_concise", "gpt_verbose"]

    @property
    def lengths(self) -> Lengths:
        return Lengths(self.reference, self.written)

    def with_entry(self, won: Array, written: Array) -> tuple[Array, Lengths]:
        """The leaderboard with one more column."""
        return (
            np.column_stack([self.wins, won]),
            Lengths(self.reference, np.column_stack([self.written, written])),
        )

    def entry(self, *, skill: float, ratio: float) -> tuple[Array, Array]:
        """The wins and lengths of an entry that writes `ratio` times as much as the reference, with the same dice."""
        dice = np.random.default_rng(self.seed + 1000)
        written = self.reference * ratio * np.exp(dice.normal(0, 0.4, self.num_prompts))
        advantage = np.tanh((written - self.reference) / self.reference.std())
        chance = sigmoid(skill + self.ease + 1.2 * advantage)
        return (dice.random(self.num_prompts) < chance).astype(float), written

    def controls(self) -> list[int]:
        return [self.num_models, self.num_models + 1]


def published_rates(world: World, columns: range) -> Array:
    """The published regression with all outside help: true difficulty, and the two controls at a tenth each.

    Written from the paper and apart from burnish's own: plain deviations, no prior, Newton's steps.
    """
    advantage = world.written - world.reference[:, None]
    advantage = np.tanh(advantage / advantage.std(axis=0, ddof=1))
    rates = []
    for m in columns:
        blocks = [(1.0, m, 1.0), *((0.0, control, 0.1) for control in world.controls())]
        design = np.concatenate(
            [
                np.column_stack([np.full(len(world.ease), own), advantage[:, c], world.ease])
                for own, c, _ in blocks
            ]
        )
        won = np.concatenate([world.wins[:, c] for _, c, _ in blocks])
        weight = np.repeat([each for *_, each in blocks], len(world.ease))
        found = np.zeros(3)
        for _ in range(60):
            p = sigmoid(design @ found)
            curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-4 * np.eye(3)
            found += np.clip(
                np.linalg.solve(curvature, design.T @ (weight * (won - p)) - 1e-4 * found), -3, 3
            )
        rates.append(float(sigmoid(found[0] + found[2] * world.ease).mean()))
    return np.array(rates)
