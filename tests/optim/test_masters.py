"""fp32 masters move by amounts that bf16 weights would lose, and sum gradients in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from burnish.optim.masters import Masters, laid_out_as, local, whole
from tests.parallel.ranks import on_ranks


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 8, bias=False)


def test_an_update_too_small_for_bf16_is_kept_in_the_master_and_reaches_the_copy_in_the_end() -> None:
    model = linear()
    start = model.weight.detach().clone()
    masters = Masters(model, compute=torch.bfloat16)
    for _ in range(2000):
        masters.parameters["weight"].data += 1e-5
        masters.refresh()
    assert model.weight.dtype == torch.bfloat16
    torch.testing.assert_close(masters.parameters["weight"].data, start + 0.02, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.weight.float(), start + 0.02, rtol=1e-2, atol=1e-3)
    plain = start.to(torch.bfloat16)  # the planted defect: without a master most weights do not move at all
    for _ in range(2000):
        plain += 1e-5
    assert (plain.float() - start - 0.02).abs().mean() > 5 * (
        model.weight.float() - start - 0.02
    ).abs().mean()


def test_gradients_of_micro_batches_are_summed_in_fp32_and_leave_no_copy_behind() -> None:
    model = linear()
    masters = Masters(model, compute=torch.bfloat16)
    total = torch.zeros(8, 8)
    for seed in range(50):
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed)).bfloat16()
        model(x).sum().backward()
        total += x.float().sum(0).bfloat16().float()
    grad = masters.parameters["weight"].grad
    assert grad is not None and grad.dtype == torch.float32
    assert model.weight.grad is None
    torch.testing.assert_close(grad, total, rtol=1e-4, atol=1e-3)


def test_in_fp32_the_master_is_the_parameter_itself() -> None:
    model = linear()
    assert Masters(model, compute=torch.float32).parameters["weight"] is model.weight


def test_only_what_is_trained_has_a_master_but_all_is_computed_in_the_asked_dtype() -> None:
    model = nn.Sequential(linear(), linear())
    model[0].requires_grad_(False)
    masters = Masters(model, compute=torch.bfloat16)
    assert set(masters.parameters) == {"1.weight"}
    assert model[0].weight.dtype == torch.bfloat16


def test_clipping_scales_the_whole_gradient_and_reports_its_norm_before() -> None:
    model = linear()
    masters = Masters(model, compute=torch.float32)
    model.weight.grad = torch.full((8, 8), 1.0)
    assert float(masters.clip(None)) == 8.0
    assert float(masters.clip(2.0)) == 8.0
    torch.testing.assert_close(model.weight.grad.norm(), torch.tensor(2.0))


def share_of(rows: int) -> tuple[list[float], int, float]:
    """On a rank: its part of a whole tensor, the bytes that it holds of it, and the sum over all ranks."""
    mesh = init_device_mesh("cpu", (2,))
    like = distribute_tensor(torch.zeros(rows, 2), mesh, [Shard(0)])
    dealt = laid_out_as(like, torch.arange(2.0 * rows).view(rows, 2))
    own = local(dealt)
    return own.flatten().tolist(), own.untyped_storage().nbytes(), float(whole(dealt).sum())


@pytest.mark.parametrize("rows", [4, 3, 1])
def test_a_rank_takes_its_part_of_a_whole_tensor_and_holds_nothing_of_the_rest(rows: int) -> None:
    found = on_ranks(2, share_of, rows)
    numbers = [float(number) for number in range(2 * rows)]
    assert found[0][0] + found[1][0] == numbers
    assert [held for _, held, _ in found] == [4 * len(own) for own, _, _ in found]
    assert {total for *_, total in found} == {sum(numbers)}
