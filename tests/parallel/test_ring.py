"""Ring attention, and whole models on shards of a pack, against one process that has everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from burnish.data.pack import Pack, build_pack
from burnish.data.shard import shard_pack
from burnish.errors import UsageError
from burnish.models import ring
from burnish.models.attention import Rule, attend
from burnish.models.forward import open_forward, pack_attention
from burnish.models.reach import Layout
from burnish.types import Example
from tests.conftest import FAMILIES, SMALL
from tests.models.trees import examples, share
from tests.parallel.ranks import on_ranks

PACKS = {"plain": build_pack(examples()), "tree": share(examples())}
RULES = {
    "plain": Rule(0.3),
    "window": Rule(0.3, window=4),
    "softcap": Rule(0.3, softcap=1.5),
    "sinks": Rule(0.3, window=5, sinks=torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)),
}
CLOSE = 1e-5


def few_graded() -> Pack:
    """A long document of which only the last token is graded: most ranks have nothing to grade."""
    ids = np.random.default_rng(3).integers(3, 60, 40).tolist()
    return build_pack([Example(0, 0, (1,), ids, [0.0] * 39 + [1.0])])


def groups() -> dict[int, dist.ProcessGroup]:
    """By size, the group of ranks that this one is in: all four, and two of two."""
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    assert dist.group.WORLD is not None
    return {4: dist.group.WORLD, 2: pairs[dist.get_rank() // 2]}


@contextmanager
def small_tiles() -> Iterator[None]:
    """Tiles so small that a pack of forty tokens has many."""
    before = ring.QUERIES, ring.KEYS
    ring.QUERIES, ring.KEYS = 5, 9
    try:
        yield
    finally:
        ring.QUERIES, ring.KEYS = before


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def whole(parts: Tensor, held: np.ndarray[Any, Any], length: int, group: dist.ProcessGroup) -> Tensor:
    """What the ranks of a group have of a pack, put together."""
    out = parts.new_zeros(length, *parts.shape[1:])
    out[torch.from_numpy(held)] = parts.detach()
    dist.all_reduce(out, group=group)
    return out


def attention_errors(pack: Pack, rule: Rule, group: dist.ProcessGroup, kv_heads: int) -> list[float]:
    """How far output and gradients of the ring are from those of one process."""
    torch.manual_seed(0)
    given = [torch.randn(len(pack), n, 8, dtype=torch.float64) for n in (4, kv_heads, kv_heads)]
    by = torch.randn(len(pack), 4, 8, dtype=torch.float64)
    shard = shard_pack(pack, dist.get_world_size(group))[dist.get_rank(group)]
    held = torch.from_numpy(shard.held)

    def computed(layout: Layout, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        inputs = [x[rows].clone().requires_grad_() for x in given]
        sinks = None if rule.sinks is None else rule.sinks.clone().requires_grad_()
        asked = Rule(rule.scale, window=rule.window, softcap=rule.softcap, sinks=sinks)
        out = attend(*inputs, layout, asked)
        return out.detach(), list(
            torch.autograd.grad(out, [*inputs, *([] if sinks is None else [sinks])], by[rows])
        )

    expected, wanted = computed(Layout.of(pack), torch.arange(len(pack)))
    out, grads = computed(Layout.of(shard, group=group), held)
    errors = [apart(whole(out, shard.held, len(pack), group), expected)]
    for grad, want in zip(grads[:3], wanted[:3], strict=True):
        errors.append(apart(whole(grad, shard.held, len(pack), group), want))
    for grad, want in zip(grads[3:], wanted[3:], strict=True):
        dist.all_reduce(grad, group=group)
        errors.append(apart(grad, want))
    return errors


def llama(**more: Any) -> nn.Module:
    """A small Llama in fp32, alike on every rank."""
    return made("llama", **more)


def made(family: str, *, lora: bool = False, recompute: bool = False) -> nn.Module:
    torch.manual_seed(1)
    config = FAMILIES[family](vocab_size=64, bos_token_id=None, eos_token_id=0, pad_token_id=None)
    config._attn_implementation = "eager"
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    return model  # type: ignore[no-any-return]


def model_errors(
    model: nn.Module, pack: Pack, group: dist.ProcessGroup, *, flat: bool = True
) -> tuple[float, float]:
    """How far loss and gradients of a model on shards are from those of one process that has the pack."""
    one, many = (open_forward(model, packed=True, flat=flat) for _ in range(2))
    many.group = group
    shard = shard_pack(pack, dist.get_world_size(group))[dist.get_rank(group)]

    def graded(forward: Any, part: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        with pack_attention(model, packed=True):
            loss, _ = forward.loss(part)
            loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected, wanted = graded(one, pack)
    loss, grads = graded(many, shard)
    assert many.flat == one.flat and (many.head is None) == (one.head is None)
    dist.all_reduce(loss, group=group)
    worst = 0.0
    for name, want in wanted.items():
        dist.all_reduce(grads[name], group=group)
        if float(want.abs().max()) > 1e-6:
            worst = max(worst, apart(grads[name], want))
    return apart(loss, expected), worst


def defect_errors(group: dist.ProcessGroup) -> dict[str, float]:
    """What planted defects do to the error that the tests bound."""
    found: dict[str, float] = {}
    right = ring._merge, ring._Home.come

    def unweighted(out: Tensor, lse: Tensor, part: Tensor, seen: Tensor) -> None:
        out.add_(part).div_(2)
        lse.copy_(torch.logaddexp(lse, seen))

    def stays(home: Any) -> tuple[Tensor, Tensor]:
        parts: tuple[Tensor, Tensor] = home._split()
        return parts

    with small_tiles():
        ring._merge = unweighted
        found["outputs averaged"] = max(attention_errors(PACKS["tree"], Rule(0.3), group, 2))
        ring._merge = right[0]
        ring._Home.come = stays  # type: ignore[method-assign]
        found["gradients left with a neighbour"] = max(
            attention_errors(build_pack(examples()[:1] * 4), Rule(0.3), group, 2)
        )
        ring._Home.come = right[1]  # type: ignore[method-assign]
    return found


def everything() -> dict[str, Any]:
    """All that the fast tests ask, in one group of four ranks, which are also two of two."""
    by_size = groups()
    found: dict[str, Any] = {"attention": {}, "model": {}}
    with small_tiles():
        for size, group in by_size.items():
            for kind, pack in list(PACKS.items())[2 - size // 2 - 1 :]:
                for name, rule in RULES.items():
                    found["attention"][size, kind, name] = max(attention_errors(pack, rule, group, 2))
    for size, group in by_size.items():
        for kind, pack in {**PACKS, "few graded": few_graded()}.items():
            found["model"][size, kind, "flat"] = model_errors(llama(), pack, group)
    for size, group in list(by_size.items())[:1]:
        found["model"][size, "tree", "modules"] = model_errors(llama(), PACKS["tree"], group, flat=False)
        found["model"][size, "tree", "recomputed"] = model_errors(llama(recompute=True), PACKS["tree"], group)
        found["model"][size, "tree", "LoRA"] = model_errors(llama(lora=True), PACKS["tree"], group)
        found["model"][size, "tree", "gemma2"] = model_errors(made("gemma2"), PACKS["tree"], group)
    found["defects"] = defect_errors(by_size[2])
    found["weights"] = ten_steps(by_size[4])
    try:
        attend(
            *(torch.zeros(len(PACKS["plain"]) // 4, 4, 8) for _ in range(3)),
            one_layout(),
            Rule(1.0, dropout=0.1),
        )
    except UsageError as error:
        found["dropout"] = str(error)
    return found


def one_layout() -> Layout:
    """The layout of this rank's shard."""
    return Layout.of(shard_pack(PACKS["plain"], 4)[dist.get_rank()], group=dist.group.WORLD)


def ten_steps(group: dist.ProcessGroup) -> float:
    """How far weights are apart after ten steps of SGD with momentum, on shards and in one process."""

    def trained(cut: Callable[[Pack], Pack], together: bool) -> list[Tensor]:
        model = llama()
        forward = open_forward(model, packed=True)
        forward.group = group if together else None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for step in range(10):
            pack = (build_pack if step % 2 else share)(examples(step))
            with pack_attention(model, packed=True):
                loss, _ = forward.loss(cut(pack))
                (loss / pack.weight).backward()
            for parameter in model.parameters():
                if together:
                    dist.all_reduce(parameter.grad, group=group)
            optimizer.step()
            optimizer.zero_grad()
        return [parameter.detach() for parameter in model.parameters()]

    alone = trained(lambda pack: pack, False)
    shared = trained(lambda pack: shard_pack(pack, 4)[dist.get_rank(group)], True)
    return max(apart(one, other) for one, other in zip(shared, alone, strict=True))


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the first of four ranks found; all found the same, for what is compared has been summed over them."""
    found: dict[str, Any] = on_ranks(4, everything)[0]
    return found


@pytest.mark.slow
def test_attention_over_a_ring_is_attention_in_one_process(told: dict[str, Any]) -> None:
    assert len(told["attention"]) == 12
    assert max(told["attention"].values()) < 1e-12, told["attention"]


@pytest.mark.slow
def test_loss_and_gradients_of_a_model_on_shards_are_those_of_one_process(told: dict[str, Any]) -> None:
    assert len(told["model"]) == 10
    assert all(max(errors) < CLOSE for errors in told["model"].values()), told["model"]


@pytest.mark.slow
def test_ten_steps_on_shards_lead_to_the_same_weights(told: dict[str, Any]) -> None:
    assert told["weights"] < CLOSE


@pytest.mark.slow
def test_planted_defects_are_seen(told: dict[str, Any]) -> None:
    assert all(error > 1e-3 for error in told["defects"].values()), told["defects"]


@pytest.mark.slow
def test_attention_dropout_is_refused(told: dict[str, Any]) -> None:
    assert "attention_dropout: 0" in told["dropout"]


def test_alone_a_ring_is_plain_attention() -> None:
    pack = PACKS["tree"]
    torch.manual_seed(0)
    given = [torch.randn(len(pack), n, 8) for n in (4, 2, 2)]
    found = attend(*given, Layout.of(shard_pack(pack, 1)[0]), Rule(0.3))
    torch.testing.assert_close(found, attend(*given, Layout.of(pack), Rule(0.3)))


def test_a_shard_goes_to_its_own_rank_only() -> None:
    with pytest.raises(ValueError, match="shard 1 of 2 on rank 0 of 1"):
        Layout.of(shard_pack(PACKS["plain"], 2)[1])


SLOW_FAMILIES = {
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, num_key_value_heads=2, vocab_size=64, head_dim=8),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **SMALL, num_key_value_heads=2, vocab_size=64, head_dim=8, num_local_experts=4, sliding_window=6
    ),
    "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, attn_pdrop=0.0),
}


def more_families() -> dict[Any, Any]:
    """Families with sinks, query norms and learnt positions."""
    found: dict[Any, Any] = {}
    for size, group in groups().items():
        for name, config in SLOW_FAMILIES.items():
            torch.manual_seed(1)
            model = transformers.AutoModelForCausalLM.from_config(
                config()
            ).eval()  # GPT-2 drops out of its residuals
            for kind, pack in PACKS.items():
                found[size, name, kind] = model_errors(model, pack, group)
    return found


@pytest.mark.slow
def test_other_families_on_shards_too() -> None:
    found = on_ranks(4, more_families)[0]
    assert all(max(errors) < CLOSE for errors in found.values()), found
