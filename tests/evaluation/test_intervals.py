"""Intervals hold what they promise: simulated studies fall inside 95% of them as often as they should."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from burnish.evaluation.intervals import (
    mean_interval,
    paired_interval,
    ratio_interval,
    wilson_interval,
    with_seeds,
)

Draw = Callable[[np.random.Generator, int], np.ndarray]


def binary(share: float) -> Draw:
    return lambda random, n: (random.random(n) < share).astype(float)


def with_ties(share: float, ties: float) -> Draw:
    def draw(random: np.random.Generator, n: int) -> np.ndarray:
        return np.where(random.random(n) < ties, 0.5, random.random(n) < share)

    return draw


def fractions(a: float, b: float) -> Draw:
    return lambda random, n: random.beta(a, b, n)


STUDIES: dict[str, tuple[Draw, float, int]] = {
    "wins and losses": (binary(0.5), 0.5, 80),
    "rare wins": (binary(0.05), 0.05, 400),
    "mostly wins": (binary(0.9), 0.9, 120),
    "ties": (with_ties(0.6, 0.4), 0.56, 80),
    "sharp fractions": (fractions(0.1, 0.4), 0.2, 200),
    "blunt fractions": (fractions(4, 2), 2 / 3, 60),
    "a whole leaderboard's row": (fractions(0.05, 0.45), 0.1, 805),
}


def coverage(
    draw: Draw, truth: float, n: int, *, studies: int, interval: Callable[..., tuple[float, float]]
) -> float:
    random = np.random.default_rng(1)
    bounds = [interval(draw(random, n)) for _ in range(studies)]
    return float(np.mean([low <= truth <= high for low, high in bounds]))


@pytest.mark.parametrize("name", STUDIES)
def test_95_percent_intervals_of_win_rates_hold_the_truth_95_times_in_a_hundred(name: str) -> None:
    draw, truth, n = STUDIES[name]
    assert 0.93 <= coverage(draw, truth, n, studies=2000, interval=mean_interval) <= 0.97


def paired(random: np.random.Generator, n: int) -> np.ndarray:
    """Differences of two models on the same prompts: ease is shared, so most prompts make none."""
    ease = random.normal(size=n)
    one, other = (random.random(n) < 1 / (1 + np.exp(-(ease * 2 + skill))) for skill in (0.5, -0.2))
    return one.astype(float) - other


def true_difference() -> float:
    ease = np.linspace(-6, 6, 4001)
    density = np.exp(-(ease**2) / 2)
    one, other = (1 / (1 + np.exp(-(ease * 2 + skill))) for skill in (0.5, -0.2))
    return float(((one - other) * density).sum() / density.sum())


@pytest.mark.parametrize(
    ("n", "studies", "least", "most"),
    [
        (80, 600, 0.92, 0.98),
        pytest.param(30, 2000, 0.93, 0.97, marks=pytest.mark.slow),
        pytest.param(80, 2000, 0.93, 0.97, marks=pytest.mark.slow),
        pytest.param(805, 2000, 0.93, 0.97, marks=pytest.mark.slow),
    ],
)
def test_paired_bootstrap_intervals_hold_the_truth_as_well(
    n: int, studies: int, least: float, most: float
) -> None:
    found = coverage(paired, true_difference(), n, studies=studies, interval=paired_interval)
    assert least <= found <= most


def test_the_check_sees_an_interval_that_is_too_narrow() -> None:
    draw, truth, n = STUDIES["wins and losses"]

    def careless(outcomes: np.ndarray) -> tuple[float, float]:
        half = 1.5 * outcomes.std() / np.sqrt(len(outcomes))
        return outcomes.mean() - half, outcomes.mean() + half

    assert coverage(draw, truth, n, studies=500, interval=careless) < 0.92


def test_pairing_is_worth_prompts() -> None:
    random = np.random.default_rng(0)
    differences = paired(random, 300)
    low, high = paired_interval(differences)
    apart = mean_interval((differences > 0).astype(float))
    assert low < differences.mean() < high
    assert high - low < 2 * (apart[1] - apart[0])


def test_nothing_and_unanimity_have_intervals_as_well() -> None:
    assert mean_interval(np.array([])) == (0.0, 1.0)
    assert mean_interval(np.ones(10)) == pytest.approx(wilson_interval(10, 10))
    low, high = mean_interval(np.full(50, 0.5))
    assert 0.4 < low < 0.5 < high < 0.6
    assert paired_interval(np.zeros(10)) == (0.0, 0.0)


def trainings(
    random: np.random.Generator, share: float, stray: float, *, rows: int, seeds: int = 3
) -> np.ndarray:
    """Outcomes (seeds, rows) of trainings whose true shares lie `stray` apart, on rows some of which are harder."""
    hardness = random.random(rows)
    reached = np.clip(share + random.normal(0, stray, seeds), 0, 1)[:, None]
    limit = np.where(reached < 0.5, np.sqrt(reached / 2), 1 - np.sqrt((1 - reached) / 2))
    return np.asarray((hardness + random.random((seeds, rows))) / 2 < limit, dtype=float)


@pytest.mark.parametrize(
    ("share", "stray", "rows"),
    [(0.24, 0.08, 400), (0.72, 0.05, 400), (0.9, 0.015, 400), (0.7, 0.0, 400), (0.5, 0.05, 60)],
)
def test_intervals_over_rows_and_seeds_hold_the_truth_and_over_rows_alone_do_not(
    share: float, stray: float, rows: int
) -> None:
    random = np.random.default_rng(5)
    held = alone = 0
    for _ in range(2000):
        own = trainings(random, share, stray, rows=rows)
        plain = mean_interval(own.mean(axis=0))
        low, high = with_seeds(own, plain, bounds=(0, 1))
        held += low <= share <= high
        alone += plain[0] <= share <= plain[1]
    assert 0.93 <= held / 2000 <= 0.975
    assert stray < 0.05 or alone / 2000 < 0.92, "the planted defect: the seeds' spread left out"


def test_one_seed_leaves_the_interval_as_it_is_and_unanimous_seeds_too() -> None:
    rows = np.array([[1.0, 0.0, 1.0, 1.0]])
    assert with_seeds(rows, (0.3, 0.9)) == (0.3, 0.9)
    assert with_seeds(np.repeat(rows, 3, axis=0), (0.3, 0.9)) == pytest.approx((0.3, 0.9))
    assert with_seeds(np.array([np.zeros(9), np.ones(9)]), (0.4, 0.6), bounds=(0, 1)) == (0, 1)


def token_sums(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of unlike lengths, whose losses hang on them: before, after, tokens."""
    size = random.normal(size=n)
    tokens = np.maximum(1, np.round(np.exp(3 + 0.6 * size)))
    before = np.exp(-0.3 * size + random.normal(0, 0.4, n))
    return tokens * before, tokens * before * np.exp(random.normal(-0.1, 0.2, n)), tokens


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 200])
def test_intervals_of_losses_and_of_their_differences_hold_the_truth(n: int) -> None:
    before, after, tokens = token_sums(np.random.default_rng(0), 4_000_000)
    loss, gain = after.sum() / tokens.sum(), (after.sum() - before.sum()) / tokens.sum()
    random = np.random.default_rng(1)
    held = {"loss": 0, "difference": 0}
    for _ in range(2000):
        before, after, tokens = token_sums(random, n)
        low, high = ratio_interval(after, tokens)
        held["loss"] += low <= loss <= high
        low, high = ratio_interval(after, tokens, less=(before, tokens))
        held["difference"] += low <= gain <= high
    assert all(0.93 <= count / 2000 <= 0.97 for count in held.values()), held
