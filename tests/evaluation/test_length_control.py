"""Length is taken out to the truth of made-up leaderboards, and nobody gains by gaming it."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.evaluation import length_control
from burnish.evaluation.length_control import (
    Lengths,
    control_length,
    find_controls,
    is_constant,
    length_advantage,
)
from tests.evaluation.worlds import World, published_rates


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=3)


def error(rates: np.ndarray, truth: np.ndarray) -> float:
    return float(100 * np.abs(rates - truth).mean())


def test_the_controlled_rates_are_nearer_to_the_truth_than_the_raw_ones(world: World) -> None:
    found = control_length(world.wins, world.lengths, controls=world.controls())
    raw = error(world.wins.mean(axis=0), world.truth)
    assert error(found.rates, world.truth) < 0.5 * raw
    assert np.corrcoef(found.difficulty, world.ease)[0, 1] > 0.85


def test_without_controls_and_with_given_difficulty_the_truth_is_found_as_well(world: World) -> None:
    raw = error(world.wins.mean(axis=0), world.truth)
    assert error(control_length(world.wins, world.lengths).rates, world.truth) < 0.6 * raw
    known = control_length(world.wins, world.lengths, difficulty=world.ease, controls=world.controls())
    assert error(known.rates, world.truth) < 0.5 * raw


def test_with_the_same_outside_help_it_is_the_published_regression_and_without_it_stays_close() -> None:
    world = World(seed=12, num_models=28)
    published = published_rates(world, range(28))
    raw = error(world.wins[:, :28].mean(axis=0), published)
    assert raw > 4, "length matters here"
    known = control_length(world.wins, world.lengths, difficulty=world.ease, controls=world.controls())
    assert error(known.rates[:28], published) < 0.1
    fitted = control_length(world.wins, world.lengths, controls=world.controls())
    assert error(fitted.rates[:28], published) < 0.7
    alone = control_length(world.wins[:, :28], Lengths(world.reference, world.written[:, :28]))
    assert error(alone.rates, published) < 1.5


def test_a_prompt_that_was_not_judged_counts_in_the_controlled_rate_as_it_is_published(world: World) -> None:
    """The regression is fitted to what was judged, and its mean taken over all prompts, easy and hard."""
    m = int(np.argmax(world.truth[:30]))
    wins = world.wins.copy()
    wins[world.ease < np.quantile(world.ease, 0.3), m] = np.nan
    found = control_length(wins, world.lengths, difficulty=world.ease, controls=world.controls())
    moved = np.nanmean(wins[:, m]) - world.wins[:, m].mean()
    assert moved > 0.1
    assert abs(found.rates[m] - world.truth[m]) < 0.5 * moved


def test_the_sign_and_the_scale_of_a_given_difficulty_do_not_matter(world: World) -> None:
    one = control_length(world.wins, world.lengths, difficulty=world.ease, controls=world.controls())
    other = control_length(world.wins, world.lengths, difficulty=-world.ease / 200, controls=world.controls())
    assert 100 * np.abs(one.rates - other.rates).max() < 1e-6


def test_advantages_are_measured_in_the_models_own_deviations_and_not_centred() -> None:
    reference = np.array([100.0, 200.0, 300.0, 400.0])
    models = np.column_stack([reference + np.array([100.0, -100.0, 200.0, 0.0]), reference, reference + 50])
    advantage = length_advantage(Lengths(reference, models))
    difference = np.array([100.0, -100.0, 200.0, 0.0])
    assert advantage[:, 0] == pytest.approx(np.tanh(difference / difference.std(ddof=1)))
    assert advantage[:, 1] == pytest.approx(np.zeros(4))
    assert advantage[:, 2] == pytest.approx(np.ones(4))


def test_entries_that_win_or_lose_nearly_always_stay_there(world: World) -> None:
    nearly = np.ones(world.num_prompts)
    nearly[:4] = 0
    for won, low, high in ((np.ones(800), 0.99, 1.0), (nearly, 0.985, 1.0), (np.zeros(800), 0.0, 0.01)):
        wins, lengths = world.with_entry(won, world.written[:, 0])
        assert low <= control_length(wins, lengths, controls=world.controls()).rates[-1] <= high


def rate_of(world: World, won: np.ndarray, written: np.ndarray, *, controls: bool = True) -> float:
    wins, lengths = world.with_entry(won, written)
    found = control_length(wins, lengths, controls=world.controls() if controls else ())
    return float(100 * found.rates[-1])


@pytest.mark.parametrize(("controls", "share_kept"), [(True, 0.3), (False, 0.6)])
def test_padding_and_endless_answers_do_not_pay(world: World, controls: bool, share_kept: float) -> None:
    honest = rate_of(world, *world.entry(skill=-0.8, ratio=1.0), controls=controls)
    won, padded = world.entry(skill=-0.8, ratio=2.2)
    gain = 100 * won.mean() - honest
    assert gain > 10, "padding pays in the raw rate"
    assert rate_of(world, won, padded, controls=controls) < honest + share_kept * gain
    endless = padded.copy()
    endless[:: world.num_prompts // 8] = 500_000.0
    assert rate_of(world, won, endless, controls=controls) < honest + (share_kept + 0.2) * gain


def test_a_few_endless_answers_would_hide_all_padding_if_deviations_were_taken_as_they_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    won, padded = world.entry(skill=-0.8, ratio=2.2)
    padded[:: world.num_prompts // 8] = 500_000.0
    guarded = rate_of(world, won, padded)
    monkeypatch.setattr(length_control, "OUTLIER_RATIO", 1e9)
    assert rate_of(world, won, padded) > guarded + 3


@pytest.mark.parametrize("given_up", [0.2, 0.5])
def test_giving_up_on_hard_prompts_is_not_brevity(world: World, given_up: float) -> None:
    won, written = world.entry(skill=-0.8, ratio=1.0)
    honest = rate_of(world, won, written)
    hard = world.ease < np.quantile(world.ease, given_up)
    brief = 12.0 + np.arange(world.num_prompts) % 7
    assert rate_of(world, np.where(hard, 0.0, won), np.where(hard, brief, written)) < honest


def test_a_price_far_from_the_others_is_held_and_said(world: World) -> None:
    _, written = world.entry(skill=0.0, ratio=1.0)
    wins, lengths = world.with_entry((written > world.reference).astype(float), written)
    found = control_length(wins, lengths)
    assert "is believed" in found.notes[wins.shape[1] - 1]
    assert abs(found.price[-1]) < 2.5


def test_leaving_out_hard_prompts_does_not_pay(world: World) -> None:
    won, written = world.entry(skill=-0.8, ratio=1.0)
    honest = rate_of(world, won, written)
    only_easy = np.where(world.ease < 0, np.nan, won)
    gain = 100 * np.nanmean(only_easy) - honest
    assert gain > 10
    assert rate_of(world, only_easy, written) < honest + 0.5 * gain


def test_an_entry_that_says_one_thing_whatever_is_asked_gets_no_credit_for_length(world: World) -> None:
    won = (np.random.default_rng(0).random(world.num_prompts) < 0.77).astype(float)
    wins, lengths = world.with_entry(won, np.full(world.num_prompts, 900.0))
    found = control_length(wins, lengths, controls=world.controls())
    assert found.rates[-1] <= won.mean()
    assert "one length" in found.notes[wins.shape[1] - 1]
    without = control_length(world.wins, world.lengths, controls=world.controls())
    assert np.abs(found.rates[:-1] - without.rates).max() < 1e-9, "nor does it move the others"
    assert is_constant(lengths.models[:, -1]) and not is_constant(world.written[:, 0])


def test_one_thing_said_with_a_few_characters_more_or_less_is_still_one_thing(world: World) -> None:
    random = np.random.default_rng(0)
    won = (random.random(world.num_prompts) < 0.77).astype(float)
    written = 900.0 + random.integers(-20, 20, world.num_prompts)
    assert rate_of(world, won, written) <= 100 * won.mean() + 1e-9
    assert not is_constant(world.reference)


def test_controls_are_the_reference_by_name_or_a_pair_around_one_half() -> None:
    models = ["a", "gpt_concise", "gpt_verbose", "b_concise", "b_verbose"]
    rates = {"a": 0.2, "gpt_concise": 0.3, "gpt_verbose": 0.6, "b_concise": 0.05, "b_verbose": 0.1}
    assert find_controls(models, "gpt", rates) == [1, 2]
    assert find_controls(models, "reference_gpt", rates) == [1, 2]
    assert find_controls(models, "reference", rates) == [1, 2]
    assert find_controls([*models, "gpt"], "reference", rates | {"gpt": 0.5}) == []


def test_one_model_alone_is_controlled_by_the_usual_price() -> None:
    world = World(seed=5, num_models=1)
    alone = control_length(world.wins[:, :1], Lengths(world.reference, world.written[:, :1]))
    assert abs(alone.rates[0] - world.truth[0]) <= abs(world.wins[:, 0].mean() - world.truth[0])
    assert alone.difficulty == pytest.approx(np.zeros(world.num_prompts))
