"""What the ranks of an update say to each other, with the other ranks' words written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from burnish.errors import DataError
from burnish.parallel.ranks import Ranks
from burnish.training import step as step_module
from burnish.training.step import Abandoned, SourceSums, _in_turn, _of_all_ranks

PACKS: Any = [
    SimpleNamespace(sources=np.array([0, 2]), weight=3.0),
    SimpleNamespace(sources=np.array([2, 1, 1]), weight=5.0),
]


def session(others: list[float]) -> Any:
    """A session at its fifth update, whose ranks add these numbers to whatever they are given."""
    return SimpleNamespace(
        forward=SimpleNamespace(device=torch.device("cpu")),
        ranks=SimpleNamespace(sum=lambda values: values + torch.tensor(others, dtype=torch.float64)),
        state=SimpleNamespace(step=4),
    )


def test_all_ranks_have_the_loss_of_all_and_of_each_source_in_order() -> None:
    mine = [torch.tensor(1.5), torch.tensor(2.0)]
    by_source = {2: torch.tensor(3.0), 0: torch.tensor(0.5)}
    summed, sources = _of_all_ranks(session([10.0, 5.0, 0.25, 4.0, 1.0]), PACKS, 3.0, mine, by_source)
    assert float(summed) == 13.5 and summed.dtype == torch.float32
    assert [(source, float(value)) for source, value in sources.items()] == [(0, 0.75), (1, 4.0), (2, 4.0)]
    idle, theirs = _of_all_ranks(session([13.5, 8.0, 1.0, 2.0, 3.0]), PACKS, 0.0, [], {})
    assert float(idle) == 13.5 and {k: float(v) for k, v in theirs.items()} == {0: 1.0, 1: 2.0, 2: 3.0}


@pytest.mark.parametrize("off", [9e-5, -9e-5])
def test_ranks_whose_weights_are_not_the_batchs_stop_the_run(off: float) -> None:
    with pytest.raises(DataError, match=r"step 5: the ranks' packs weigh [78]\.\d+, and the batch 8\.0"):
        _of_all_ranks(session([0.0, 5.0 + off, 0.0, 0.0, 0.0]), PACKS, 3.0, [], {})


def test_sums_of_the_same_weights_in_another_order_are_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for off in (7e-5, -7e-5):
        _of_all_ranks(session([0.0, 5.0 + off, 0.0, 0.0, 0.0]), PACKS, 3.0, [], {})
    monkeypatch.setattr(step_module, "WEIGHT_OFF", 0.125)
    _of_all_ranks(session([0.0, 6.0, 0.0, 0.0, 0.0]), PACKS, 3.0, [], {})  # off by just so much


def turns(
    monkeypatch: pytest.MonkeyPatch, interrupted: Callable[[], bool], *, asks_first: bool
) -> Iterator[Any]:
    """A rank with one pack of its own among ranks that have up to three."""
    monkeypatch.setattr(step_module, "shares_of", lambda packs, ranks: ["mine"])
    monkeypatch.setattr(step_module, "num_turns", lambda packs, ranks: 3)
    return _in_turn([], Ranks(), interrupted, asks_first=asks_first)


@pytest.mark.parametrize(("asks_first", "asks"), [(False, 2), (True, 3)])
def test_a_rank_with_fewer_packs_asks_as_often_as_the_others(
    asks_first: bool, asks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    found = list(turns(monkeypatch, lambda: bool(asked.append(1)), asks_first=asks_first))
    assert found == ["mine"] and len(asked) == asks


@pytest.mark.parametrize(("asks_first", "found"), [(False, ["mine"]), (True, [])])
def test_asked_to_stop_it_gives_up_before_the_next_turn(
    asks_first: bool, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    with pytest.raises(Abandoned):
        for share in turns(monkeypatch, lambda: True, asks_first=asks_first):
            given.append(share)
    assert given == found


def test_what_other_ranks_found_of_held_out_packs_is_added_source_by_source() -> None:
    sums = SourceSums()
    sums.add(np.array([1, 0, 1]), np.array([2.0, 5.0, 4.0]), np.array([True, False, False]))
    given: list[list[float]] = []

    def total(values: torch.Tensor) -> torch.Tensor:
        given.append(values.tolist())
        assert values.dtype == torch.float64
        return values + torch.tensor([20.0, 1, 3.0, 1, 0, 0.0, 0, 4, 8.0, 2], dtype=torch.float64)

    assert sums.gather(PACKS, total, 11.0) == 31.0
    assert given == [[11.0, 1, 5.0, 0, 2, 6.0, 1, 0, 0, 0]]
    assert sums.tokens == {0: 2, 1: 2, 2: 4} and all(type(count) is int for count in sums.tokens.values())
    assert sums.losses() == {0: 4.0, 1: 3.0, 2: 2.0}
    assert sums.accuracies() == {0: 0.5, 1: 0.5, 2: 0.5}
    assert sums.totals() == (4, 8)
