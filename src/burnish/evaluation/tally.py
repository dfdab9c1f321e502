"""What votes add up to: win rates with intervals, strengths, and how far raters and judges can be trusted.

Ties count half, both bad as well. A prompt counts once however many voted on it: its share is the mean over raters,
each rater's over the orders in which it saw the pair. A judge that was read in one order only has not voted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from burnish.evaluation.agreement import cohen_kappa, fleiss_kappa, position_bias
from burnish.evaluation.bradley_terry import Battle, strengths
from burnish.evaluation.intervals import mean_interval
from burnish.evaluation.length_control import Lengths, control_length
from burnish.evaluation.outputs import Pair
from burnish.evaluation.power import study
from burnish.evaluation.votes import CHOICES, Vote, by_rater, one_way_round


def tally(votes: Sequence[Vote]) -> dict[str, Any]:
    """Everything that a report on votes holds; rates in percent."""
    votes = one_way_round(votes)
    counted = [vote for vote in votes if not vote.again]
    by_models: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    shown: dict[str, Pair] = {}
    for (pair_id, _), given in by_rater(votes).items():
        shown[pair_id] = given[0].pair
        by_models[given[0].pair.models][pair_id].append(float(np.mean([vote.won for vote in given])))
    decided = [vote for vote in counted if vote.first and vote.choice in ("a", "b")]
    first = sum(vote.choice == vote.first for vote in decided)
    models = {name for pair in by_models for name in pair}
    return {
        "pairs": [_pair(pair, won, shown) for pair, won in by_models.items()],
        "choices": {choice: sum(vote.choice == choice for vote in counted) for choice in CHOICES},
        "raters": _raters(votes),
        "agreement": _agreement(votes),
        "position_bias": asdict(position_bias(first=first, second=len(decided) - first)) if decided else None,
        "strengths": _strengths(by_models, shown) if len(models) > 2 else None,
    }


def _pair(models: tuple[str, str], won: dict[str, list[float]], shown: dict[str, Pair]) -> dict[str, Any]:
    shares = np.array([np.mean(each) for each in won.values()])
    low, high = mean_interval(shares)
    chars = np.array([[sum(map(len, turns)) for turns in shown[pair].answers] for pair in won], dtype=float)
    controlled = control_length(shares[:, None], Lengths(chars[:, 1], chars[:, :1])).rates[0]
    return {
        "model": models[0],
        "against": models[1],
        "prompts": len(shares),
        "win_rate": 100 * float(shares.mean()),
        "ci": [100 * low, 100 * high],
        "length_controlled_win_rate": 100 * float(controlled),
        "tied": 100 * float(np.mean(shares == 0.5)),
        "power": study(len(shares), ties=min(0.9, float(np.mean(shares == 0.5)))).in_words(),
    }


def _raters(votes: Sequence[Vote]) -> dict[str, dict[str, Any]]:
    """Each rater's number of votes, and of judges how often both orders, and being asked again, agree."""
    found: dict[str, dict[str, Any]] = {}
    for rater in dict.fromkeys(vote.rater for vote in votes):
        mine = [vote for vote in votes if vote.rater == rater]
        said = {(vote.pair.id, vote.first, vote.again): vote.choice for vote in mine}
        orders = [
            (said[p, "a", 0], said[p, "b", 0])
            for p, f, n in said
            if (f, n) == ("a", 0) and (p, "b", 0) in said
        ]
        again = [(said[p, f, 0], said[p, f, n]) for p, f, n in said if n and (p, f, 0) in said]
        found[rater] = {
            "votes": len(mine),
            "both_orders_agree": float(np.mean([a == b for a, b in orders])) if orders else None,
            "asked_again": asdict(cohen_kappa(*zip(*again, strict=True))) if again else None,
        }
    return found


def _agreement(votes: Sequence[Vote]) -> dict[str, Any]:
    """Cohen's kappa of every two raters with pairs in common, Fleiss' over all where they are three or more."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for (pair, rater), given in by_rater(votes).items():
        choices = {vote.choice for vote in given}
        said[rater][pair] = choices.pop() if len(choices) == 1 else "tie"
    found: dict[str, Any] = {}
    for one, other in combinations(said, 2):
        common = [pair for pair in said[one] if pair in said[other]]
        if common:
            kappa = cohen_kappa([said[one][pair] for pair in common], [said[other][pair] for pair in common])
            found[f"{one} / {other}"] = asdict(kappa)
    if len(said) > 2:
        pairs = {pair for choices in said.values() for pair in choices}
        every = {
            pair: [choices[pair] for choices in said.values() if pair in choices] for pair in sorted(pairs)
        }
        found["all"] = asdict(fleiss_kappa(every))
    return found


def _strengths(
    by_models: dict[tuple[str, str], dict[str, list[float]]], shown: dict[str, Pair]
) -> dict[str, Any]:
    battles = [
        Battle(one, other, float(np.mean(shares)), "\n".join(shown[pair].asked))
        for (one, other), won in by_models.items()
        for pair, shares in won.items()
    ]
    return {model: asdict(strength) for model, strength in strengths(battles).items()}
