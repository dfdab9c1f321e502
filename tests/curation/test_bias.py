"""Planted biases are found, four of four; of sets without one, one in twenty at most is accused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.curation import rates
from burnish.curation.audited import read_audited, to_audited
from burnish.curation.bias import audit
from burnish.curation.findings import Audit
from burnish.curation.items import Input
from burnish.curation.rates import Stratum
from burnish.types import Origin, Rejected
from tests.conftest import write_jsonl
from tests.curation import biased
from tests.curation.biased import Record

PLANTED: dict[str, Callable[[list[Record]], list[Record]]] = {
    "agreement": biased.always_agrees,
    "position:A": biased.always_a,
    "length:longer rival": biased.longer_wins,
    "refusal:river": biased.refuses_rivers,
}


def audited(rows: list[Record]) -> Audit:
    return audit([to_audited(row, Origin("made", line)) for line, row in enumerate(rows, start=1)])


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bias_is_found_and_nothing_else(name: str) -> None:
    for seed in range(3):
        found = audited(PLANTED[name](biased.balanced(seed)))
        assert [finding.name for finding in found.biases] == [name]
        assert found.biases[0].examples[0].startswith("made:")


def test_the_longest_option_is_a_bias_too() -> None:
    found = audited(biased.longest_option(biased.balanced(0)))
    assert [finding.name for finding in found.biases] == ["length:longest option"]


def test_all_four_at_once_are_found() -> None:
    rows = biased.balanced(5)
    for plant in PLANTED.values():
        rows = plant(rows)
    assert {finding.name for finding in audited(rows).biases} >= set(PLANTED)


def test_balanced_sets_are_accused_at_most_once_in_twenty() -> None:
    accused = [bool(audited(biased.balanced(seed, number=40)).biases) for seed in range(1000, 1100)]
    assert sum(accused) <= 5


@pytest.mark.slow
def test_over_a_thousand_balanced_sets_the_rate_is_at_most_five_in_a_hundred() -> None:
    accused = sum(bool(audited(biased.balanced(seed, number=40)).biases) for seed in range(1000))
    assert rates.wilson_interval(accused, 1000)[0] <= 0.05


def test_without_correction_balanced_sets_would_be_accused() -> None:
    """The defect that the correction mends: the smallest raw p is below 5% in far more than one set in twenty."""
    low = [min(f.p for f in audited(biased.balanced(seed, number=40)).findings) < 0.05 for seed in range(40)]
    assert sum(low) >= 6  # 15%


def test_a_companion_of_the_keyword_is_not_reported_beside_it() -> None:
    rows = [
        {"instruction": f"Write about river boats {k}", "output": "I'm sorry, but I can't help."}
        for k in range(40)
    ]
    rows += [{"instruction": f"Write about old boats {k}", "output": "Boats float."} for k in range(10)]
    rows += [{"instruction": f"Write about old trees {k}", "output": "Trees grow."} for k in range(60)]
    assert [finding.name for finding in audited(rows).biases] == ["refusal:river"]


def test_another_language_in_the_answer_is_found() -> None:
    rows = [
        {
            "instruction": f"What is the use of the thing {k} for you?",
            "output": "It is for the one that is with you.",
        }
        for k in range(40)
    ]
    rows += [
        {
            "instruction": f"Was ist das und wie ist der Name der Stadt {k}?",
            "output": "It is the name of the one that you have.",
        }
        for k in range(40)
    ]
    assert [finding.name for finding in audited(rows).biases] == ["language:de"]


def test_high_scores_for_long_answers_are_found() -> None:
    rows = [
        {"instruction": f"Say {k}", "output": "word " * (k % 7 + 1), "score": float(k % 7)}
        for k in range(140)
    ]
    assert "length:scored" in [finding.name for finding in audited(rows).biases]


def test_first_words_are_held_against_a_baseline_set() -> None:
    rows = [
        to_audited({"instruction": f"Do {k}", "output": "Certainly! Here"}, Origin("a", k)) for k in range(60)
    ]
    base = [
        to_audited({"instruction": f"Do {k}", "output": f"{w} here"}, Origin("b", k))
        for k, w in enumerate(biased.WORDS * 4)
    ]
    assert [finding.name for finding in audit(rows, baseline=base).biases] == ["first word:'certainly'"]


def test_what_cannot_be_tested_is_said() -> None:
    found = audited([{"instruction": f"Name {k}", "output": "A name."} for k in range(9)])
    assert not found.findings and set(found.untested) >= {"agreement", "position", "length", "refusal"}


def test_rows_of_other_layouts_are_read(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "rows.jsonl",
        [
            {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
            {
                "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}],
                "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "bad"}],
            },
            {"nothing": 1},
        ],
    )
    rows = list(read_audited([Input(str(tmp_path / "rows.jsonl"))]))
    first, second, third, last = rows
    assert not isinstance(first, Rejected) and first.offered == ("x", "y") and first.answer == "B"
    assert not isinstance(second, Rejected) and (second.prompt, second.answer) == ("Hi", "Ho")
    assert not isinstance(third, Rejected) and (third.answer, third.rival) == ("good", "bad")
    assert isinstance(last, Rejected)


def test_the_exact_test_is_that_of_all_permutations() -> None:
    """Two strata, every way of dealing the hits out, counted one by one."""
    strata = [Stratum(3, 4, 1, 4), Stratum(2, 3, 1, 3)]
    as_many = total = 0
    for first in itertools.combinations(range(8), 4):
        for second in itertools.combinations(range(6), 3):
            total += 1
            as_many += sum(k < 4 for k in first) + sum(k < 3 for k in second) >= 5
    assert rates.excess_p(strata) == pytest.approx(as_many / total)
    assert rates.least_p(strata) == pytest.approx(1 / math.comb(8, 4) / math.comb(6, 3))


def test_chance_holm_and_tarone_on_small_numbers() -> None:
    assert rates.chance_p(2, [(2, 0.5)]) == pytest.approx(0.25)
    assert rates.chance_p(1, [(1, 0.5), (1, 0.25)]) == pytest.approx(1 - 0.5 * 0.75)
    assert rates.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert rates.num_testable([0.001] * 3 + [0.5] * 1000, 0.05) == 3
    low, high = rates.wilson_interval(98, 100)
    assert (round(low, 3), round(high, 3)) == (0.930, 0.994)
