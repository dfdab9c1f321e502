"""The win rate that is left when the judge's taste for length is taken out (after Dubois et al. 2024, 2404.04475).

For model m and prompt x, with d = characters of the model's answer minus the reference's:

    logit P(m wins on x) = skill_m + price_m * tanh(d / std_x(d)) + slope_m * difficulty_x

The rate is the mean of P over the prompts with tanh(..) set to 0: what m would win had it written as much as the
reference. Where nobody hands in the prompts' difficulty it is fitted here, from the other models in the file (a Rasch
model), never from the entry's own wins.

What keeps an entry from buying points:
- a *control* is the reference itself told to be brief or wordy (`REFERENCE_concise`, `REFERENCE_verbose`): of equal
  skill by construction, so its wins say what the judge pays for length alone. Controls weigh a fifth of an entry's own
  rows. Without any, the price is drawn to what the models of the file pay, and to one logit.
- no price is believed more than one logit away from the others', so giving up on hard prompts is not brevity;
- a few endless answers cannot blow up std(d), which would hide the padding of all others;
- an entry that says the same thing whatever is asked gets no credit for its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

USUAL_PRICE, USUAL_SPREAD = 1.0, 0.3
"""What judges pay for a full length advantage, in logits, before a file has said anything."""
PRICE_SPREAD = 0.22  # between models; as informative as the controls are for an entry of 805 prompts
PRICE_SPREAD_WITH_CONTROLS = 1.0
FARTHEST_PRICE = 1.0
SLOPE_SPREAD = 0.5
SKILL_SPREAD = 5.0  # so wide that it only matters to entries that win or lose every prompt
CONTROL_WEIGHT = 0.2
OUTLIER_RATIO = 2.0
CONSTANT_SHARE = 0.5
CONSTANT_SPAN = 0.1  # of their length; in what real models write half the answers span half of it or more


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters of the reference's answers (prompts) and of the models' (prompts, models); NaN where unknown."""

    reference: Array
    models: Array


@dataclass(frozen=True, slots=True)
class LengthControl:
    """Rates and coefficients by model; `notes` says of an entry what was held against it."""

    rates: Array
    skill: Array
    price: Array
    slope: Array
    difficulty: Array
    notes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Prior:
    mean: Array
    spread: Array


@dataclass(frozen=True, slots=True)
class _Rows:
    """Weighted rows of one regression: design (N, 3) of skill, length and difficulty, outcomes in 0..1."""

    design: Array
    wins: Array
    weight: Array


def control_length(
    wins: Array, lengths: Lengths, *, difficulty: Array | None = None, controls: Sequence[int] = ()
) -> LengthControl:
    """Length-controlled rates of the columns of `wins` (prompts, models), in 0..1; NaN is a prompt not judged."""
    advantage = length_advantage(lengths)
    known = np.isfinite(wins) & np.isfinite(advantage)
    advantage = np.where(known, advantage, 0.0)
    constant = [m for m in range(wins.shape[1]) if is_constant(lengths.models[:, m])]
    honest = [m for m in range(wins.shape[1]) if m not in constant]
    hardness = _Hardness(wins, advantage, known, honest, difficulty)
    columns = [_own_rows(wins, advantage, known, hardness.for_model(m), m) for m in range(wins.shape[1])]
    control_columns = [m for m in controls if m in honest]
    price = _price_prior([columns[m] for m in honest], with_controls=bool(control_columns))
    notes: dict[int, str] = {}
    fitted = np.zeros((wins.shape[1], 3))
    rates = np.full(wins.shape[1], np.nan)
    for m, rows in enumerate(columns):
        if not len(rows.wins):
            continue
        beside = [_control_rows(columns[c], len(rows.wins), len(control_columns)) for c in control_columns]
        fitted[m] = _fit_bounded(_stacked([rows, *beside]), price, notes, m)
        rates[m] = _sigmoid(fitted[m, 0] + fitted[m, 2] * hardness.for_model(m)).mean()
        if m in constant:
            rates[m] = min(rates[m], float(rows.wins.mean()))
            notes[m] = "its answers have one length whatever is asked: no credit is given for length"
    return LengthControl(rates, fitted[:, 0], fitted[:, 1], fitted[:, 2], hardness.everyone, notes)


def length_advantage(lengths: Lengths) -> Array:
    """tanh of each model's difference in length, in its own standard deviations over prompts; not centred."""
    difference = lengths.models - lengths.reference[:, None]
    return np.column_stack([_standardised(column) for column in difference.T])


def _standardised(difference: Array) -> Array:
    present = difference[np.isfinite(difference)]
    if len(present) < 2:
        return np.zeros_like(difference)
    deviation = float(present.std(ddof=1))
    low, high = np.percentile(present, [25, 75])
    usual = (high - low) / 1.349  # the deviation of a bell curve with these quartiles
    if usual > 0:
        deviation = min(deviation, OUTLIER_RATIO * float(usual))
    if deviation == 0:
        return np.where(np.isfinite(difference), np.sign(difference), np.nan)
    return np.asarray(np.tanh(difference / deviation))


def is_constant(lengths: Array, *, fewest: int = 20) -> bool:
    """Whether most answers have the same length, or all but: nobody who reads the prompts writes so."""
    present = np.sort(lengths[np.isfinite(lengths) & (lengths > 0)])
    if len(present) < fewest:
        return False
    most = int(CONSTANT_SHARE * len(present))
    spans = present[most:] - present[: len(present) - most]  # of each run of half the answers
    return bool((spans <= CONSTANT_SPAN * present[most:]).any())


class _Hardness:
    """The prompts' difficulty: given, or fitted; then each model meets the one fitted without it."""

    def __init__(
        self, wins: Array, advantage: Array, known: NDArray[np.bool_], honest: list[int], given: Array | None
    ) -> None:
        self._without: dict[int, Array] = {}
        if given is not None:
            self.everyone = _scaled(given, wins)
            return
        self.everyone = np.zeros(len(wins))
        if len(honest) > 1:
            rasch = _Rasch(wins[:, honest], advantage[:, honest], known[:, honest])
            self.everyone = rasch.difficulty(rasch.known)
            for place, m in enumerate(honest):
                others = rasch.known.copy()
                others[:, place] = False
                self._without[m] = rasch.difficulty(others)

    def for_model(self, model: int) -> Array:
        """What the other models show of each prompt."""
        return self._without.get(model, self.everyone)


def _scaled(difficulty: Array, wins: Array) -> Array:
    """Given difficulty in its own deviations, high where models win; not centred: controls have no skill to shift."""
    known = np.isfinite(difficulty)
    if not known.any() or np.ptp(difficulty[known]) == 0:
        return np.zeros(len(difficulty))
    scaled = np.where(known, difficulty, difficulty[known].mean()) / difficulty[known].std()
    seen = np.isfinite(wins)
    share = np.where(seen, wins, 0).sum(axis=1) / np.maximum(1, seen.sum(axis=1))
    return np.asarray(scaled if np.dot(scaled - scaled.mean(), share - share.mean()) >= 0 else -scaled)


class _Rasch:
    """logit P = skill_m + price_m * advantage + difficulty_x over all models, difficulty_x ~ N(0, v), v by EM."""

    def __init__(self, wins: Array, advantage: Array, known: NDArray[np.bool_], *, rounds: int = 40) -> None:
        self.known, self._wins, self._advantage = known, np.where(known, wins, 0.0), advantage
        self._variance = 1.0
        self._offset = np.zeros_like(wins)
        prior = _Prior(np.array([0.0, USUAL_PRICE, 1.0]), np.array([SKILL_SPREAD, PRICE_SPREAD, 1e-6]))
        difficulty = np.zeros(len(wins))
        fitted = np.tile(prior.mean, (wins.shape[1], 1))
        for _ in range(rounds):
            for m in range(wins.shape[1]):
                rows = _own_rows(wins, advantage, known, difficulty, m)
                fitted[m] = _fit(rows, prior, start=fitted[m], rounds=2)
            self._offset = fitted[:, 0] + fitted[:, 1] * advantage
            before, difficulty = difficulty, self.difficulty(known)
            self._variance = max(0.05, float(np.mean(difficulty**2 + self._uncertainty(difficulty))))
            if np.abs(difficulty - before).max() < 1e-4:
                break

    def difficulty(self, seen: NDArray[np.bool_]) -> Array:
        """The likeliest difficulty of each prompt, from the outcomes in `seen`."""
        difficulty = np.zeros(len(seen))
        for _ in range(12):
            p = _sigmoid(self._offset + difficulty[:, None])
            slope = (seen * (self._wins - p)).sum(axis=1) - difficulty / self._variance
            difficulty += np.clip(slope / ((seen * p * (1 - p)).sum(axis=1) + 1 / self._variance), -2, 2)
        return difficulty

    def _uncertainty(self, difficulty: Array) -> Array:
        p = _sigmoid(self._offset + difficulty[:, None])
        return np.asarray(1 / ((self.known * p * (1 - p)).sum(axis=1) + 1 / self._variance))


def _own_rows(wins: Array, advantage: Array, known: NDArray[np.bool_], difficulty: Array, m: int) -> _Rows:
    here = known[:, m]
    design = np.column_stack([np.ones(here.sum()), advantage[here, m], difficulty[here]])
    return _Rows(design, wins[here, m], np.ones(here.sum()))


def _control_rows(rows: _Rows, own: int, controls: int) -> _Rows:
    """A control's rows without the column of skill, which is the reference's own: 0."""
    weight = CONTROL_WEIGHT / controls * own / max(1, len(rows.wins))
    return _Rows(rows.design * [0.0, 1.0, 1.0], rows.wins, rows.weight * weight)


def _stacked(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(
        np.concatenate([part.design for part in parts]),
        np.concatenate([part.wins for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )


def _price_prior(columns: Sequence[_Rows], *, with_controls: bool) -> _Prior:
    """Where an entry's price and slope are expected: the file's models' own, weighted by how well each is known."""
    wide = _Prior(np.array([0.0, USUAL_PRICE, 1.0]), np.array([SKILL_SPREAD, 1.0, 1.0]))
    price = [(USUAL_PRICE, 1 / USUAL_SPREAD**2)]
    slope = [(1.0, 1.0)]
    for rows in columns:
        if len(rows.wins):
            fitted = _fit(rows, wide)
            certain = np.linalg.inv(_curvature(rows, fitted) + np.diag(wide.spread**-2.0)).diagonal()
            bounded = np.clip(fitted[1], USUAL_PRICE - 2, USUAL_PRICE + 2)
            price.append((float(bounded), 1 / (certain[1] + USUAL_SPREAD**2)))
            slope.append((float(fitted[2]), 1 / (certain[2] + SLOPE_SPREAD**2)))
    spread = PRICE_SPREAD_WITH_CONTROLS if with_controls else PRICE_SPREAD
    return _Prior(
        np.array([0.0, _weighted_mean(price), _weighted_mean(slope)]),
        np.array([SKILL_SPREAD, spread, SLOPE_SPREAD]),
    )


def _weighted_mean(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def _fit_bounded(rows: _Rows, prior: _Prior, notes: dict[int, str], m: int) -> Array:
    fitted = _fit(rows, prior)
    low, high = prior.mean[1] - FARTHEST_PRICE, prior.mean[1] + FARTHEST_PRICE
    if low <= fitted[1] <= high:
        return fitted
    notes[m] = (
        f"its wins hang on length by {fitted[1]:+.1f} logits; no more than {low:.1f} to {high:.1f} is believed"
    )
    held = np.array([prior.mean[0], np.clip(fitted[1], low, high), prior.mean[2]])
    return _fit(rows, _Prior(held, np.array([prior.spread[0], 1e-6, prior.spread[2]])))


def _fit(rows: _Rows, prior: _Prior, *, start: Array | None = None, rounds: int = 50) -> Array:
    """The likeliest coefficients under a normal prior: Newton's steps, halved while they lead downhill."""
    coefficients = prior.mean.copy() if start is None else start.copy()
    precision = np.diag(prior.spread**-2.0)
    best = _score(rows, prior, coefficients)
    for _ in range(rounds):
        p = _sigmoid(rows.design @ coefficients)
        gradient = rows.design.T @ (rows.weight * (rows.wins - p)) - precision @ (coefficients - prior.mean)
        step = np.linalg.solve(_curvature(rows, coefficients) + precision, gradient)
        while (score := _score(rows, prior, coefficients + step)) < best and np.abs(step).max() > 1e-9:
            step = step / 2
        coefficients = coefficients + step
        best = score
        if np.abs(step).max() < 1e-7:
            break
    return coefficients


def _curvature(rows: _Rows, coefficients: Array) -> Array:
    p = _sigmoid(rows.design @ coefficients)
    return np.asarray((rows.design * (rows.weight * p * (1 - p))[:, None]).T @ rows.design)


def _score(rows: _Rows, prior: _Prior, coefficients: Array) -> float:
    logits = rows.design @ coefficients
    likelihood = (rows.weight * (rows.wins * logits - np.logaddexp(0, logits))).sum()
    return float(likelihood - 0.5 * (((coefficients - prior.mean) / prior.spread) ** 2).sum())


def _sigmoid(logits: Any) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def find_controls(models: Sequence[str], reference: str | None, rates: Mapping[str, float]) -> list[int]:
    """Which columns are the reference told to be brief or wordy: by its name, or as a pair around one half."""
    stems: dict[str, list[str]] = {}
    for model in models:
        for ending in ("concise", "verbose"):
            if model.endswith((f"_{ending}", f"-{ending}")):
                stems.setdefault(model[: -len(ending) - 1], []).append(model)
    found: list[str] = []
    for stem, variants in stems.items():
        named = reference is not None and (reference == stem or reference.endswith(f"_{stem}"))
        brief, wordy = ([rates[v] for v in variants if v.endswith(e)] for e in ("concise", "verbose"))
        around_half = bool(brief and wordy) and brief[0] < 0.5 < wordy[0]
        if named or (stem not in models and around_half):
            found += variants
    return [models.index(name) for name in found]
