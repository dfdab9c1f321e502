"""Sums in fp32 of bf16 parts: the numbers are those of one addition, whatever the blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from burnish.losses import sums
from burnish.losses.sums import add_up, gradient_sum, sum_gradient_of

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=3)


@given(SIZES, st.sampled_from([torch.bfloat16, torch.float32]), st.integers(1, 40), st.booleans())
def test_a_part_is_added_once_to_every_number(
    shape: list[int], dtype: torch.dtype, at_once: int, transposed: bool
) -> None:
    drawn = torch.Generator().manual_seed(sum(shape) + at_once)
    total = torch.randn(shape, generator=drawn)
    part = torch.randn(shape[::-1], generator=drawn).to(dtype).permute(*reversed(range(len(shape))))
    part = part if transposed else part.contiguous()
    expected = total + part.float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "AT_ONCE", at_once)
        add_up(total, part)
    assert torch.equal(total, expected)


PARTS = st.lists(st.sampled_from(["part", "lent part", "rows", "lent and lost", "forget"]), max_size=8)


@given(PARTS, st.integers(0, 99))
def test_a_gradient_is_the_sum_of_what_was_added_since_it_was_forgotten(parts: list[str], seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    master = nn.Parameter(torch.zeros(5, 3))
    weight = nn.Parameter(torch.zeros(5, 3, dtype=torch.bfloat16))
    summed = sum_gradient_of(weight, master)
    assert gradient_sum(weight) is summed
    expected: torch.Tensor | None = None
    for part in parts:
        if part == "forget":
            summed.forget()
            expected = None
            continue
        value = torch.randn(5, 3, generator=drawn)
        if part == "lent and lost":  # a forward pass whose backward never came
            room = summed.room()
            if room is not None:
                room.copy_(value)
            continue
        if part == "rows":
            index = torch.randint(5, (7,), generator=drawn)
            rows = torch.randn(7, 3, generator=drawn).bfloat16()
            value = torch.zeros(5, 3).index_add_(0, index, rows.float())
            summed.add_rows(index, rows)
        else:
            room = summed.room() if part == "lent part" else None
            if room is None:
                value = value.bfloat16().float()
                summed.add(value.bfloat16())
            else:
                summed.add(room.copy_(value))
        expected = value if expected is None else expected + value
    if expected is None:
        assert master.grad is None
    else:
        assert master.grad is not None
        torch.testing.assert_close(master.grad, expected)


def test_memory_is_lent_to_one_at_a_time_and_the_same_again_when_it_is_free() -> None:
    master = nn.Parameter(torch.zeros(2, 2))
    summed = sum_gradient_of(nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16)), master)
    room = summed.room()
    assert room is not None and summed.room() is None
    summed.add(room.fill_(1.0))
    assert master.grad is room and summed.room() is None
    summed.forget()
    assert summed.room() is room


def test_frozen_weights_and_weights_of_no_master_have_no_sum() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    assert gradient_sum(weight) is None and gradient_sum(torch.zeros(2)) is None
    sum_gradient_of(weight, nn.Parameter(torch.zeros(2, 2)))
    assert gradient_sum(weight.requires_grad_(False)) is None
