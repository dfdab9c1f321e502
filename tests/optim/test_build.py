"""Each optimiser lowers a loss, and its state goes out and comes back by parameter name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from burnish.errors import DataError
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


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "muon", "adamw_8bit"])
def test_a_state_that_is_another_optimizer_s_or_another_shape_s_is_refused_by_name(name: str) -> None:
    net = model()
    optimizer = build(net, name)
    take_steps(net, optimizer, 1)
    saved = optimizer.state()
    key = next(key for key in saved if key.startswith("1.weight/") and not key.endswith("/step"))
    lacking = {each: value for each, value in saved.items() if each != key}
    if name not in ("sgd", "muon"):  # these keep one entry, without which there is no state
        with pytest.raises(DataError, match=r"'1\.weight' has \["):
            build(model(), name).load(lacking)
    with pytest.raises(DataError, match=r"'1\.weight' has \['strange'\]"):
        build(model(), name).load({"1.weight/strange": torch.ones(2)})
    with pytest.raises(DataError, match="'weights' is no entry of a parameter"):
        build(model(), name).load({**saved, "weights": torch.ones(2)})
    with pytest.raises(DataError, match="which is not trained here"):
        build(model(), name).load({**saved, "9.weight/exp_avg": torch.ones(2)})
    if name != "adafactor":
        with pytest.raises(DataError, match=r"1\.weight': .* has the shape"):
            build(model(), name).load({**saved, key: saved[key].flatten()[:-1]})


def test_moments_that_lie_otherwise_in_memory_are_laid_out_as_their_parameter() -> None:
    straight, net = model(), model()
    one, first = build(straight, "adamw"), build(net, "adamw")
    take_steps(straight, one, 5)
    take_steps(net, first, 2)
    second = build(net, "adamw")
    turned = {k: v.T.contiguous().T if v.dim() == 2 else v.clone() for k, v in first.state().items()}
    assert not all(value.is_contiguous() for value in turned.values())
    second.load(turned)
    take_steps(net, second, 3)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in straight.state_dict().items())
