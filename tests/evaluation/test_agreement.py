"""Kappa, position bias and strengths, on examples whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.errors import DataError, UsageError
from burnish.evaluation.agreement import cohen_kappa, fleiss_kappa, position_bias
from burnish.evaluation.bradley_terry import Battle, strengths
from burnish.evaluation.requirements import require


def test_cohens_kappa_of_a_worked_example() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: seen 0.7, by chance 0.5
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen_kappa(one, other)
    assert (found.share, found.kappa, found.items) == (pytest.approx(0.7), pytest.approx(0.4), 50)
    assert found.interval[0] < 0.4 < found.interval[1]


def test_raters_that_toss_coins_agree_by_chance_and_twins_always() -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 3, 3000).tolist(), random.integers(0, 3, 3000).tolist()
    assert abs(cohen_kappa(one, other).kappa) < 0.05
    assert cohen_kappa(one, one).kappa == pytest.approx(1)
    assert cohen_kappa(["a"] * 5, ["a"] * 5).kappa == 1
    assert abs(fleiss_kappa({k: random.integers(0, 3, 4).tolist() for k in range(1000)}).kappa) < 0.05


def test_fleiss_kappa_of_fleiss_own_shape_of_table_and_of_uneven_numbers_of_votes() -> None:
    # two items of three raters: (a, a, b) and (b, b, b): agreeing pairs 1/3 and 1, chance (1/3)^2 + (2/3)^2
    found = fleiss_kappa({1: "aab", 2: "bbb"})
    assert found.share == pytest.approx(2 / 3)
    assert found.kappa == pytest.approx((2 / 3 - 5 / 9) / (1 - 5 / 9))
    assert fleiss_kappa({1: "aab", 2: "bbb", 3: "a"}).kappa == found.kappa
    assert fleiss_kappa({1: "a"}).items == 0


def test_a_judge_that_likes_the_first_place_is_told_from_one_that_does_not() -> None:
    assert position_bias(first=70, second=30).is_biased
    assert not position_bias(first=55, second=45).is_biased
    assert position_bias(first=0, second=0).p_value == 1


def planted(seed: int, battles: int) -> tuple[dict[str, float], list[Battle]]:
    random = np.random.default_rng(seed)
    truth = {f"m{k}": s for k, s in enumerate(np.linspace(-1.5, 1.5, 8))}
    names = list(truth)
    fought = []
    for place in range(battles):
        one, other = random.choice(names, 2, replace=False)
        won = random.random() < 1 / (1 + np.exp(truth[other] - truth[one]))
        fought.append(Battle(str(one), str(other), float(won), str(place % 400)))
    return truth, fought


def test_planted_strengths_are_recovered() -> None:
    truth, fought = planted(0, 8000)
    found = strengths(fought, resamples=50)
    assert list(found) == sorted(truth, key=lambda model: -truth[model])
    for model, true in truth.items():
        assert found[model].strength == pytest.approx(true, abs=0.15)
    strong, weak = found["m7"], found["m0"]
    assert strong.against(weak) == pytest.approx(1 / (1 + np.exp(-3)), abs=0.02)


@pytest.mark.parametrize("studies", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_intervals_of_strengths_hold_the_truth(studies: int) -> None:
    inside = []
    for seed in range(studies):
        truth, fought = planted(seed, 1200)
        found = strengths(fought, resamples=100, seed=seed)
        inside += [found[m].interval[0] <= true <= found[m].interval[1] for m, true in truth.items()]
    assert 0.90 <= np.mean(inside) <= 0.98


def test_a_model_that_always_won_has_a_finite_strength_and_strangers_are_refused() -> None:
    found = strengths([Battle("a", "b", 1.0, str(k)) for k in range(20)], resamples=10)
    assert 1 < found["a"].strength < 5
    tied = strengths([Battle("a", "b", 0.5, str(k)) for k in range(20)], resamples=10)
    assert tied["a"].strength == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError, match="never met"):
        strengths([Battle("a", "b", 1.0), Battle("c", "d", 1.0)])


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(UsageError, match="no_such_package") as caught:
        require("no_such_package", extra="arena")
    assert "burnish[arena]" in caught.value.remedy
