"""Each optimiser lowers a loss, and its state goes out and comes back by parameter name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from burnish.optim.build import Optimizer


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 8), nn.Linear(8, 16, bias=False))


def build(net: nn.Module, name: str, weight_decay: float = 0.0) -> Optimizer:
    return Optimizer(
        dict(net.named_parameters()),
        name=name,
        weight_decay=weight_decay,
        embeddings=frozenset({"0.weight", "2.weight"}),
    )


def take_steps(net: nn.Module, optimizer: Optimizer, count: int) -> float:
    ids = torch.arange(16)
    for _ in range(count):
        loss = nn.functional.cross_entropy(net(ids), (ids + 1) % 16)
        net.zero_grad()
        loss.backward()
        optimizer.step(3e-2)
    return float(loss)


@pytest.mark.parametrize(
    "name", ["adamw", "sgd", "adafactor", "muon", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]
)
def test_every_optimizer_learns_and_goes_on_from_its_saved_state_bit_for_bit(name: str) -> None:
    straight = model()
    optimizer = build(straight, name)
    start = take_steps(straight, optimizer, 1)
    assert take_steps(straight, optimizer, 29) < start

    net = model()
    first = build(net, name)
    take_steps(net, first, 12)
    second = build(net, name)
    second.load({key: value.clone() for key, value in first.state().items()})
    take_steps(net, second, 18)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key


def test_moments_in_8_bits_take_a_quarter_and_move_a_matrix_much_as_whole_ones_do() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(128, 64), [torch.randn(128, 64) for _ in range(10)]
    moved, held = {}, {}
    for name in ("adamw", "adamw_8bit"):
        net = nn.Linear(64, 128, bias=False)
        net.weight.data.copy_(start)
        optimizer = Optimizer(
            dict(net.named_parameters()), name=name, weight_decay=0.1, embeddings=frozenset()
        )
        for gradient in gradients:
            net.weight.grad = gradient.clone()
            optimizer.step(1e-2)
        moved[name] = net.weight.detach() - start
        held[name] = sum(value.nbytes for value in optimizer.state().values())
    assert held["adamw_8bit"] < 0.27 * held["adamw"]
    assert (moved["adamw_8bit"] - moved["adamw"]).norm() < 0.05 * moved["adamw"].norm()


def test_vectors_do_not_decay_and_matrices_do() -> None:
    net = model()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = build(net, "adamw", weight_decay=0.5)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1)
    assert torch.equal(net.state_dict()["1.bias"], before["1.bias"])
    torch.testing.assert_close(net.state_dict()["1.weight"], before["1.weight"] * 0.95)


def test_muon_leaves_embeddings_and_heads_to_adamw() -> None:
    net = model()
    optimizer = build(net, "muon")
    take_steps(net, optimizer, 1)
    entries = {}
    for key in optimizer.state():
        parameter, entry = key.rsplit("/", 1)
        entries.setdefault(parameter, set()).add(entry)
    assert entries["1.weight"] == {"momentum_buffer"}
    assert all("exp_avg" in entries[name] for name in ("0.weight", "2.weight", "1.bias"))
