"""The attention kernels beside the rule in fp64, and beside torch's own operations in bf16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from burnish.data.pack import Pack, build_pack
from burnish.kernels.library import kernels, why_none
from burnish.models.attention import Rule, attend_densely, rotate
from burnish.models.fused_attention import attend_fused, fuses
from burnish.models.kept_attention import Rotation, attend_kept
from burnish.models.reach import Layout
from burnish.types import Example
from tests.models.trees import share

pytestmark = pytest.mark.skipif(kernels() is None, reason=f"no kernels here: {why_none()}")

BF16, EXACT = torch.bfloat16, torch.float64


def rows(lengths: list[int], common: int, seed: int = 0) -> list[Example]:
    """Documents that begin with the same `common` tokens; the last third of each is graded."""
    draw = np.random.default_rng(seed)
    prefix = draw.integers(3, 60, common).tolist()
    made = []
    for row, length in enumerate(lengths):
        ids = [*prefix, 60 + row, *draw.integers(3, 60, length).tolist()]
        graded = max(1, len(ids) // 3)
        weights = [0.0] * (len(ids) - graded) + [1.0] * graded
        made.append(Example(row, 0, (1,), ids, [0.0, *weights[1:]]))
    return made


class Case:
    """Random queries, keys, values and gradient for a pack, and what each way makes of them."""

    def __init__(
        self, pack: Pack, heads: tuple[int, int], depth: int, *, rotated: bool, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.layout, self.length, self.depth = Layout.of(pack), len(pack), depth
        self.given = [torch.randn(self.length, n, depth).to(BF16) for n in (heads[0], heads[1], heads[1])]
        self.by = torch.randn(self.length, heads[0], depth).to(BF16)
        angles = (torch.arange(self.length)[:, None] * torch.rand(depth // 2)).repeat(1, 2)
        self.rotation = Rotation(angles.cos().to(BF16), angles.sin().to(BF16)) if rotated else None
        self.needed = torch.zeros(self.length, dtype=torch.bool)
        for first, stop in self.layout.needed:
            self.needed[first:stop] = True

    def fused(self, window: int | None, *, only_needed: bool = False) -> list[Tensor]:
        return self._run(attend_fused, window, only_needed)

    def kept(self, window: int | None, *, only_needed: bool = False) -> list[Tensor]:
        return self._run(attend_kept, window, only_needed)

    def _run(self, attend: Any, window: int | None, only_needed: bool) -> list[Tensor]:
        given = [x.clone().requires_grad_() for x in self.given]
        settings: dict[str, Any] = {"scale": self.depth**-0.5, "window": window, "only_needed": only_needed}
        out = attend(*given, self.layout, rotation=self.rotation, **settings)
        return self._with_gradients(out, given, only_needed)

    def exact(self, window: int | None, *, only_needed: bool = False) -> list[Tensor]:
        given = [x.to(EXACT).requires_grad_() for x in self.given]
        query, key, value = given
        if self.rotation is not None:
            turn = Rotation(*(x.to(EXACT) for x in self.rotation))
            query, key = rotate(query, turn), rotate(key, turn)
        out = attend_densely(query, key, value, self.layout, Rule(self.depth**-0.5, window=window))
        return self._with_gradients(out, given, only_needed)

    def _with_gradients(self, out: Tensor, given: list[Tensor], only_needed: bool) -> list[Tensor]:
        mask = self.needed[:, None, None].to(out.dtype) if only_needed else torch.ones(1, dtype=out.dtype)
        return [
            (out * mask).detach(),
            *torch.autograd.grad(out, given, self.by.to(out.dtype) * mask),
        ]


def error(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Relative to what is right; who sees one key has no gradient of scores, and nothing to be relative to."""
    least = 1e-2 * float(exact[0].norm())
    return [float((a - b).norm() / b.norm().clamp(min=least)) for a, b in zip(found, exact, strict=True)]


ROUNDED = 2 * 2**-8
"""Two steps of bf16. The sum that softmax's gradient takes away comes from the rounded output, as in FlashAttention:
of documents of a few tokens the gradient may be off by more than where all shares are kept."""


def no_worse(case: Case, window: int | None, *, only_needed: bool = False) -> None:
    exact = case.exact(window, only_needed=only_needed)
    fused = error(case.fused(window, only_needed=only_needed), exact)
    kept = error(case.kept(window, only_needed=only_needed), exact)
    assert fused[0] <= 1.1 * kept[0] + 1e-4
    assert all(one <= max(ROUNDED, 1.1 * other) for one, other in zip(fused, kept, strict=True)), (
        fused,
        kept,
    )


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    common=st.integers(1, 60),
    shares=st.booleans(),
    heads=st.sampled_from([(4, 4), (4, 2), (6, 2), (5, 1)]),
    depth=st.sampled_from([16, 48, 64, 80, 128, 256]),
    window=st.sampled_from([None, 1, 7, 40]),
    rotated=st.booleans(),
    only_needed=st.booleans(),
    seed=st.integers(0, 9),
)
def test_no_further_from_the_rule_than_torch(
    lengths: list[int],
    common: int,
    shares: bool,
    heads: tuple[int, int],
    depth: int,
    window: int | None,
    rotated: bool,
    only_needed: bool,
    seed: int,
) -> None:
    made = rows(lengths, common, seed)
    case = Case(share(made) if shares else build_pack(made), heads, depth, rotated=rotated, seed=seed)
    no_worse(case, window, only_needed=only_needed)


@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("shares", [False, True])
def test_more_keys_than_are_compared_at_once(window: int | None, shares: bool) -> None:
    made = rows([700, 3, 260], 333)
    no_worse(Case(share(made) if shares else build_pack(made), (3, 1), 32, rotated=True), window)


def test_scores_far_apart_do_not_overflow() -> None:
    case = Case(build_pack(rows([300, 300], 1)), (2, 2), 32, rotated=False)
    case.given[0] *= 60
    case.given[1] *= 60
    exact, fused = case.exact(None), case.fused(None)
    assert all(one.isfinite().all() for one in fused)
    assert error(fused[:1], exact[:1])[0] < 2e-2


def test_a_document_does_not_see_its_neighbour() -> None:
    """Bit for bit, forward and backward: another first document leaves the second as it was."""
    case = Case(build_pack(rows([75, 130], 1)), (4, 2), 64, rotated=True)
    before = case.fused(None)
    second = case.layout.runs[1].start
    for tensor in (*case.given, case.by):
        tensor[:second] = 3 * torch.randn_like(tensor[:second])
    for one, other in zip(before, case.fused(None), strict=True):
        assert one[second:].equal(other[second:])
        assert not one[:second].equal(other[:second])


def test_the_number_of_threads_changes_no_bit() -> None:
    case = Case(share(rows([75, 130, 20, 260], 90)), (4, 2), 64, rotated=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(case.fused(None))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(a.equal(b) for a, b in zip(found[0], other, strict=True))


def test_heads_that_lie_otherwise_in_memory() -> None:
    """transformers' layers hand heads over transposed, `(H, T, D)` seen as `(T, H, D)`."""
    case = Case(build_pack(rows([50, 30], 1)), (4, 2), 32, rotated=True)
    expected = case.fused(None)
    case.given = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in case.given]
    assert all(a.equal(b) for a, b in zip(case.fused(None), expected, strict=True))
    case.given = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in case.given]
    assert all(a.equal(b) for a, b in zip(case.fused(None), expected, strict=True))


def test_what_is_left_to_torch() -> None:
    half = [torch.zeros(3, 2, 32, dtype=BF16) for _ in range(3)]
    assert fuses(*half, None)
    assert not fuses(*(x.float() for x in half), None)
    assert not fuses(*(x[..., :24] for x in half), None)
    assert not fuses(*half[:2], half[2][..., :16], None)
    assert not fuses(*half, Rotation(torch.ones(3, 32), torch.zeros(3, 32)))
