"""Sums in fp32 of bf16 parts: the numbers are those of one addition, whatever the blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.losses import sums
from burnish.losses.sums import add_up

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
