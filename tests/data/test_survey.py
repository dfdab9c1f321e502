"""What is said of an epoch before it runs is what its packs turn out to be."""

from __future__ import annotations

from functools import partial

import pytest

from burnish.data.pack import pack_all
from burnish.data.plan import Plan
from burnish.data.survey import survey
from burnish.types import Example

LAY_OUT = partial(pack_all, max_tokens=128, share_prefixes=True)


def rows_with_a_prompt(count: int, prompt: int = 40) -> list[tuple[Example, ...]]:
    """Rows of one sequence: a common prompt, then 5 to 9 tokens of their own, graded."""
    return [
        (
            Example(
                row, 0, (1,), [1] * prompt + [2 + row] * (5 + row % 5), [0.0] * prompt + [1.0] * (5 + row % 5)
            ),
        )
        for row in range(count)
    ]


def plan(rows: int) -> Plan:
    return Plan(num_rows=rows, batch_size=8, num_epochs=1, max_steps=None, seed=0)


def test_a_small_set_is_counted_exactly() -> None:
    rows = rows_with_a_prompt(40)
    told = survey(rows, plan(40), LAY_OUT)
    packs = [pack for step in range(5) for pack in LAY_OUT([rows[row][0] for row in plan(40).rows_of(step)])]
    assert (told.is_exact, told.steps, told.rows, told.examples) == (True, 5, 40, 40)
    assert told.tokens == told.full == sum(len(views[0]) for views in rows)
    assert told.graded_tokens == told.tokens - 40 * 40
    assert told.laid == told.laid_in_epoch == sum(map(len, packs)) == told.tokens - 5 * 7 * 40
    assert told.packs_in_epoch == len(packs) == 5
    assert told.saved == pytest.approx(5 * 7 * 40 / told.tokens)
    assert told.fill(128) == pytest.approx(told.laid / (128 * 5))
    assert told.saved_error == 0.0
    assert "drawn at random" not in " ".join(told.describe(128))


def test_of_a_large_set_a_sample_stands_for_the_epoch_and_the_survey_says_so() -> None:
    rows = rows_with_a_prompt(400)
    sampled, exact = (survey(rows, plan(400), LAY_OUT, most=most) for most in (80, 400))
    assert (sampled.is_exact, sampled.looked_at, exact.is_exact) == (False, 10, True)
    assert sampled.tokens == exact.tokens
    assert sampled.graded_tokens == exact.graded_tokens
    assert abs(sampled.saved - exact.saved) <= 4 * sampled.saved_error + 1e-9
    assert "10 of the 50 steps" in " ".join(sampled.describe(128))
    assert survey(rows, plan(400), LAY_OUT, most=80) == sampled
