"""Every backend of the reach rule against the rule itself, as one dense mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from burnish.data.pack import Pack, build_pack
from burnish.models import kept_attention
from burnish.models.attention import Rule, attend, attend_densely, rotate
from burnish.models.cuda_attention import attend_flex, attend_varlen
from burnish.models.kept_attention import Rotation, attend_kept
from burnish.models.reach import Layout
from burnish.types import Example
from tests.models.trees import examples, share

PACKS = {"plain": build_pack(examples()), "tree": share(examples())}


def tensors(
    pack: Pack, heads: int = 4, groups: int = 2, dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(len(pack), n, 8, dtype=dtype, requires_grad=True) for n in (heads, groups, groups)]


def long_document(length: int) -> Pack:
    ids = np.random.default_rng(0).integers(3, 60, length).tolist()
    return build_pack([Example(0, 0, (1,), ids, [0.0] + [1.0] * (length - 1))])


def test_the_rule_in_a_picture() -> None:
    rows = [Example(i, 0, (), ids, [0.0] * 3 + [1.0]) for i, ids in enumerate([[1, 2, 5, 6], [1, 2, 7, 8]])]
    pack = share(rows)
    assert pack.input_ids.tolist() == [1, 2, 5, 6, 7, 8]
    seen = ["".join("x" if cell else "." for cell in line) for line in Layout.of(pack).visible().tolist()]
    assert seen == ["x.....", "xx....", "xxx...", "xxxx..", "xx..x.", "xx..xx"]
    near = ["".join("x" if cell else "." for cell in line) for line in Layout.of(pack).visible(2).tolist()]
    assert near == ["x.....", "xx....", ".xx...", "..xx..", ".x..x.", "....xx"]


def test_a_tree_shows_each_token_just_what_its_own_document_would() -> None:
    rows = examples()
    tree = Layout.of(share(rows)).visible().sum(1).tolist()
    positions = share(rows).position_ids.tolist()
    assert tree == [position + 1 for position in positions]


@pytest.mark.parametrize("kind", PACKS)
@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("block", [3, 256])
def test_kept_attention_follows_the_rule(
    kind: str, window: int | None, heads: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_attention, "BLOCK", block)
    monkeypatch.setattr(kept_attention, "ALIGN", 2 if block < 256 else 32)
    pack = PACKS[kind]
    layout, given = Layout.of(pack), tensors(pack, *heads)
    expected = attend_densely(*given, layout, Rule(0.3, window=window))
    found = attend_kept(*given, layout, scale=0.3, window=window)
    torch.testing.assert_close(found, expected)
    by = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, given, by), torch.autograd.grad(expected, given, by), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", PACKS)
@pytest.mark.parametrize("window", [None, 4])
def test_soft_capping_follows_the_rule(kind: str, window: int | None) -> None:
    pack = PACKS[kind]
    rule = Rule(0.3, window=window, softcap=1.5)
    layout, given = Layout.of(pack), tensors(pack)
    torch.testing.assert_close(attend(*given, layout, rule), attend_densely(*given, layout, rule))


@pytest.mark.parametrize("kind", PACKS)
def test_rotation_on_the_way_is_rotation_before(kind: str) -> None:
    pack = PACKS[kind]
    layout, (query, key, value) = Layout.of(pack), tensors(pack)
    angle = torch.from_numpy(pack.position_ids)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.01]).double()
    turn = Rotation(angle.cos().repeat(1, 2), angle.sin().repeat(1, 2))
    expected = attend_densely(rotate(query, turn), rotate(key, turn), value, layout, Rule(0.3))
    found = attend(query, key, value, layout, Rule(0.3), rotation=turn)
    torch.testing.assert_close(found, expected)
    by = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, (query, key, value), by)
    for one, other in zip(torch.autograd.grad(found, (query, key, value), by), wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", PACKS)
def test_only_the_needed_rows_are_those_of_all_rows(kind: str) -> None:
    pack = PACKS[kind]
    layout, given = Layout.of(pack), tensors(pack)
    rows = torch.from_numpy(pack.rows_kept)
    every = attend_kept(*given, layout, scale=0.3)[rows]
    some = attend_kept(*given, layout, scale=0.3, only_needed=True)[rows]
    torch.testing.assert_close(some, every)
    for one, other in zip(
        torch.autograd.grad(some.square().sum(), given),
        torch.autograd.grad(every.square().sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_probabilities_of_long_documents_are_made_again_and_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack = long_document(70)
    layout, given = Layout.of(pack), tensors(pack)
    monkeypatch.setattr(kept_attention, "BLOCK", 16)

    def gradients(keep: int) -> tuple[torch.Tensor, ...]:
        monkeypatch.setattr(kept_attention, "KEEP", keep)
        return torch.autograd.grad(attend_kept(*given, layout, scale=0.3).square().sum(), given)

    for one, other in zip(gradients(1024), gradients(20), strict=True):
        assert torch.equal(one, other)


def test_dropout_on_attention_is_drawn() -> None:
    pack = PACKS["plain"]
    layout, given = Layout.of(pack), tensors(pack)
    one, other = (attend(*given, layout, Rule(0.3, dropout=0.5)) for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 4])
def test_varlen_attention_follows_the_rule(window: int | None) -> None:
    pack = PACKS["plain"]
    torch.manual_seed(0)
    given = [
        torch.randn(len(pack), n, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        for n in (4, 2, 2)
    ]
    layout = Layout.of(pack, "cuda")
    found = attend_varlen(*given, layout, scale=0.125, window=window)
    expected = attend_densely(*(t.float() for t in given), layout, Rule(0.125, window=window))
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    found.sum().backward()
    assert all(t.grad is not None for t in given)


@pytest.mark.gpu
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("kind", PACKS)
def test_flex_attention_follows_the_rule(kind: str, window: int | None, softcap: float | None) -> None:
    pack = PACKS[kind]
    torch.manual_seed(0)
    given = [torch.randn(len(pack), n, 64, device="cuda", requires_grad=True) for n in (4, 2, 2)]
    layout = Layout.of(pack, "cuda")
    found = attend_flex(*given, layout, scale=0.125, window=window, softcap=softcap)
    expected = attend_densely(*given, layout, Rule(0.125, window=window, softcap=softcap))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    found.sum().backward()
    assert all(t.grad is not None for t in given)
