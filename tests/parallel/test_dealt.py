"""A base in 4 bits in rows of bytes: the numbers that bitsandbytes' layers give, and 1/N of the bytes on each rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from burnish.models import shard as sharding
from burnish.models.dealt import WAITING, load_to_deal, pack
from burnish.models.quantized import footprint, load_quantized, quantized_layers
from tests.parallel.ranks import on_ranks

ModelDirectory = Callable[[str], Path]
CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["wide", "llama", "gpt2"])
def test_rows_of_bytes_compute_what_bitsandbytes_layers_do(
    family: str, dtype: torch.dtype, model_directory: ModelDirectory
) -> None:
    name = str(model_directory(family))
    known, ours = load_quantized(name, compute=dtype, device=CPU), load_to_deal(name, compute=dtype)
    told, counted = footprint(ours), footprint(known)
    assert told.in_bf16 == counted.in_bf16 and told.rest == counted.rest
    assert told.quantized == pytest.approx(counted.quantized, rel=0.01)
    assert len(pack(ours, compute=dtype, device=CPU)) == len(list(quantized_layers(known)))
    ids = torch.arange(1, 30)[None]
    found = [model(inputs_embeds=model.get_input_embeddings()(ids)).logits for model in (known, ours)]
    assert torch.equal(*found)
    grads = []
    for model in (known, ours):
        given = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=given).logits.float().square().sum().backward()
        grads.append(given.grad)
    assert torch.equal(*grads)


def held(name: str, ranks: int, at_once: bool) -> tuple[int, int, int, bool]:
    """Bytes of all rows, of this rank's parts, the most of both while they are dealt, and whether a matrix waits."""
    model = load_to_deal(name, compute=torch.bfloat16)
    most = [0]

    def bytes_held() -> int:
        weights = [layer.weight for layer in quantized_layers(model)]
        parts = [w.to_local() if isinstance(w, DTensor) else w for w in weights]
        return sum(part.untyped_storage().nbytes() for part in parts)

    def watched(*given: object, **more: object) -> object:
        packed = pack(*given, **more)  # type: ignore[arg-type]
        most[0] = max(most[0], bytes_held())
        return packed

    sharding.pack = watched  # type: ignore[assignment]
    if at_once:
        sharding.remember_shapes(watched(model, compute=torch.bfloat16, device=CPU))  # type: ignore[arg-type]
    sharding.shard(model, init_device_mesh("cpu", (ranks,)), compute=torch.bfloat16)
    whole = sum(layer.weight.numel() * 2 for layer in quantized_layers(model))
    return whole, bytes_held(), most[0], any(hasattr(layer, WAITING) for layer in quantized_layers(model))


def held_both_ways(name: str, ranks: int) -> list[tuple[int, int, int, bool]]:
    """As shard() deals, and as it must not: all quantised first."""
    return [held(name, ranks, at_once) for at_once in (False, True)]


def test_a_rank_holds_its_part_of_the_bytes_and_one_layer_while_it_loads(
    model_directory: ModelDirectory,
) -> None:
    name = str(model_directory("wide"))
    layers = load_to_deal(name, compute=torch.bfloat16).config.num_hidden_layers
    for (whole, part, most, waits), planted in on_ranks(2, held_both_ways, name, 2):
        assert part == whole / 2 and not waits
        allowed = whole / 2 + whole / layers / 2  # a whole layer, and halves of those before it
        assert most <= allowed < planted[2] == whole
