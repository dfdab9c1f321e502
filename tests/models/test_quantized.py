"""A base in 4 bits: small, made without ever being large, and the same weights whatever is done with it."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from burnish.errors import DataError
from burnish.models import quantized
from burnish.models.flat import why_not_flat
from burnish.models.quantized import (
    Footprint,
    exact_parameters,
    footprint,
    load_quantized,
    norms,
    quantize,
    quantized_layers,
    read_lazily,
)

CPU = torch.device("cpu")


def loaded(directory: Path | str, compute: torch.dtype = torch.bfloat16) -> transformers.PreTrainedModel:
    return load_quantized(str(directory), compute=compute, device=CPU)


def unpacked(layer: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def test_marble_in_4_bits_takes_a_quarter_and_says_much_the_same() -> None:
    model = loaded("marble")
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        quantized.locate("marble"), dtype=torch.bfloat16
    ).eval()
    assert footprint(model).share <= 0.30
    assert len(list(quantized_layers(model))) == 4 * 7
    assert footprint(model).matrices_left == 0
    ids = torch.arange(100, 164)[None]
    with torch.no_grad():
        one, two = model.eval()(ids).logits.float(), plain(ids).logits.float()
    kl = torch.nn.functional.kl_div(one.log_softmax(-1), two.softmax(-1), reduction="none").sum(-1).mean()
    assert 0 < kl < 0.1 * -(two.softmax(-1) * two.log_softmax(-1)).sum(-1).mean()


@pytest.mark.parametrize("family", ["llama", "wide", "qwen2", "gemma2", "gpt_neox", "gpt2"])
def test_every_family_loads_with_norms_in_fp32_that_answer_in_the_dtype_they_are_asked_in(
    family: str, model_directory: Callable[[str], Path]
) -> None:
    model = loaded(model_directory(family)).eval()
    assert list(quantized_layers(model))
    assert {parameter.dtype for parameter in exact_parameters(model)} == {torch.float32}
    assert {parameter.data_ptr() for parameter in exact_parameters(model)} == {
        parameter.data_ptr() for module in norms(model) for parameter in module.parameters()
    }
    if family in ("llama", "wide", "qwen2"):
        assert why_not_flat(model) is None  # these hooks say what our own forward says
    out = model(torch.tensor([[5, 9, 30, 7]]), output_hidden_states=True)
    assert {state.dtype for state in out.hidden_states} == {torch.bfloat16}
    assert out.logits.dtype == torch.bfloat16 and out.logits.isfinite().all()


def test_the_weights_are_the_originals_rounded_and_a_second_load_is_the_same(
    model_directory: Callable[[str], Path],
) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(model_directory("wide"))
    one, two = (loaded(model_directory("wide"), torch.float32) for _ in range(2))
    pairs = zip(quantized_layers(one), quantized_layers(two), strict=True)
    assert all(
        torch.equal(a.weight.data, b.weight.data) and torch.equal(unpacked(a), unpacked(b)) for a, b in pairs
    )
    layer = one.model.layers[0].mlp.gate_proj
    original = plain.model.layers[0].mlp.gate_proj.weight
    off = (unpacked(layer) - original).norm() / original.norm()
    assert 0 < off < 0.11
    assert torch.equal(one.model.embed_tokens.weight, plain.model.embed_tokens.weight)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "wide"])
def test_every_layer_in_4_bits_gives_its_weights_back_and_those_of_broken_blocks_are_left_alone(
    family: str, model_directory: Callable[[str], Path]
) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(model_directory(family))
    model = loaded(model_directory(family), torch.float32)
    originals = dict(plain.named_parameters())
    packed = 0
    for name, parameter in model.named_parameters():
        if getattr(parameter, "quant_state", None) is None:
            assert torch.equal(parameter, originals[name]), name
            continue
        packed += 1
        back = unpacked(model.get_submodule(name.removesuffix(".weight")))
        original = originals[name].t() if family == "gpt2" else originals[name]
        assert back.shape == original.shape and back.shape[1] % 64 == 0
        assert (back - original).norm() / original.norm() < 0.11, name
    assert packed == {"llama": 2, "gpt2": 2, "gpt_neox": 2, "gemma2": 2, "wide": 14}[family]
    left = footprint(model).matrices_left
    assert (left == 0) == (family == "wide")


def test_a_model_of_broken_blocks_only_is_refused() -> None:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, vocab_size=16
    )
    with pytest.raises(DataError, match="32 inputs"):
        quantize(config, {}, compute=torch.float32, device=CPU)


def test_an_evaluation_leaves_the_weights_as_they_are(model_directory: Callable[[str], Path]) -> None:
    """On a CPU with AVX-512 bf16, bitsandbytes would repack them for inference, with rounded scales."""
    model = loaded(model_directory("wide")).eval()
    before = [
        (layer.weight.data.clone(), layer.weight.quant_state.absmax.clone())
        for layer in quantized_layers(model)
    ]
    with torch.no_grad():
        model(torch.tensor([[5, 9, 30, 7]]))
    for layer, (weight, scales) in zip(quantized_layers(model), before, strict=True):
        assert torch.equal(layer.weight.data, weight)
        assert torch.equal(layer.weight.quant_state.absmax, scales)


def test_the_defect_that_this_guards_against_is_real_where_the_processor_has_it() -> None:
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("no AVX-512 bf16 here")
    model = loaded("marble").eval()
    layer = next(iter(quantized_layers(model)))
    before = layer.weight.data.clone()
    layer.support_avx512bf16_for_cpu = True
    with torch.no_grad():
        model(torch.tensor([[5, 9, 30, 7]]))
    assert layer.weight.data.shape != before.shape or not torch.equal(layer.weight.data, before)


class Counted:
    """A lazy tensor that knows how many bytes of its kind are alive."""

    alive = most = 0

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def get_shape(self) -> list[int]:
        return list(self.inner.get_shape())

    def get_dtype(self) -> str:
        return str(self.inner.get_dtype())

    def __getitem__(self, index: Any) -> Tensor:
        tensor: Tensor = self.inner[index]
        Counted.alive += tensor.nbytes
        Counted.most = max(Counted.most, Counted.alive)
        weakref.finalize(tensor, Counted.gone, tensor.nbytes)
        return tensor

    @classmethod
    def gone(cls, count: int) -> None:
        cls.alive -= count


def most_alive(directory: Path, load: Callable[[Any, dict[str, Any]], Any]) -> int:
    Counted.alive = Counted.most = 0
    weights = {name: Counted(one) for name, one in read_lazily(directory).items()}
    config = transformers.AutoConfig.from_pretrained(directory)
    model = load(config, weights)
    assert model is not None
    return Counted.most


def test_while_a_model_is_quantised_one_of_its_matrices_is_held_at_a_time(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 64}
    config = transformers.LlamaConfig(num_hidden_layers=8, tie_word_embeddings=True, **shape)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    matrices = [p for p in model.parameters() if p.dim() == 2]
    small = (
        sum(p.nbytes for p in model.parameters() if p.dim() == 1) + 64 * 64 * 2
    )  # norms and embedding stay
    one_by_one = most_alive(
        tmp_path, lambda config, weights: quantize(config, weights, compute=torch.bfloat16, device=CPU)
    )
    assert one_by_one <= small + 2 * max(p.nbytes for p in matrices)

    def all_at_once(config: Any, weights: dict[str, Any]) -> Any:
        held = {name: one[...] for name, one in weights.items()}  # the defect: all is read, then quantised
        return quantize(config, held, compute=torch.bfloat16, device=CPU)

    assert most_alive(tmp_path, all_at_once) >= sum(p.nbytes for p in matrices)


def test_a_model_that_is_quantised_already_is_refused(
    model_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    loaded(model_directory("wide")).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="quantised already"):
        loaded(tmp_path)


def test_bytes_that_two_layers_share_are_counted_once() -> None:
    assert Footprint(258, 1000, 1, 0).share == pytest.approx(0.258)
    assert "0.26 of bf16" in str(Footprint(258, 1000, 1, 0))
    assert "12 parameters of other matrices" in str(Footprint(258, 1000, 1, 12))


MEASURE = """
import json, sys, threading, time
from burnish.parallel.runtime import give_back_freed_memory, prepare_process
prepare_process()
import torch, transformers
from transformers.models.llama import modeling_llama
from burnish.models.quantized import load_quantized, footprint
import bitsandbytes

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

# Whatever loading brings in is there before it is measured.
load_quantized(sys.argv[2], compute=torch.bfloat16, device=torch.device("cpu"))
before, most, over = resident(), 0, False
def watch():
    global most
    while not over:
        most = max(most, resident())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
if sys.argv[3] == "4bit":
    model = load_quantized(
        sys.argv[1], compute=torch.bfloat16, device=torch.device("cpu"), between=give_back_freed_memory
    )
else:
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
    sum(float(parameter.sum()) for parameter in model.parameters())
over = True
thread.join()
held = footprint(model).quantized if sys.argv[3] == "4bit" else 0
print(json.dumps({"grown": most - before, "held": held}))
"""


@pytest.mark.slow
def test_the_peak_of_a_process_that_quantises_stays_well_below_the_model_in_full_precision(
    tmp_path: Path, model_directory: Callable[[str], Path]
) -> None:
    shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "vocab_size": 512}
    config = transformers.LlamaConfig(num_hidden_layers=24, tie_word_embeddings=True, **shape)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    model.save_pretrained(tmp_path, max_shard_size="100MB")
    whole = sum(parameter.nbytes for parameter in model.parameters())
    assert whole > 5e8
    grown = {}
    for kind in ("4bit", "full"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), str(model_directory("wide")), kind]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        grown[kind] = json.loads(said.splitlines()[-1])
    assert grown["full"]["grown"] >= 0.9 * whole  # what is measured would see it, but for blocks used again
    assert grown["4bit"]["grown"] <= 0.6 * whole, grown
