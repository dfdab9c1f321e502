"""A base in 4 bits: NF4 with double quantisation by bitsandbytes, made tensor by tensor as it is read.

    64 weights in bf16   128 bytes
    in 4 bits             32 bytes of codes, 1 of scale, 1/64 for the scale of 256 scales: 0.258 of bf16

transformers' own loader quantises each tensor before it touches the next. It is fed tensors that are read where it
would map the files: mapped pages count as this process's memory, and stay mapped while one norm points into them.
Norms stay in fp32 and give their result in the dtype in which they were asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.utils import is_bitsandbytes_available

from burnish.errors import DataError, UsageError
from burnish.models.locate import locate, read_json

BLOCK = 64
"""Weights that share a scale."""

WAITING = "waiting"
"""What holds the matrix of a layer that is put in 4 bits later, as it is dealt to ranks (`models.dealt`)."""


class Lazy(Protocol):
    """A tensor that is made when it is asked for with `[...]`: what safetensors' `get_slice` gives."""

    def __getitem__(self, index: Any) -> Tensor: ...
    def get_shape(self) -> list[int]: ...  # noqa: D102
    def get_dtype(self) -> str: ...  # noqa: D102


def load_quantized(
    name: str,
    *,
    compute: torch.dtype,
    device: torch.device,
    exact_norms: bool = True,
    between: Callable[[], None] = lambda: None,
) -> PreTrainedModel:
    """The model of `name` with linear layers in 4 bits, the rest in `compute`, and norms in fp32 unless told not to.

    At no time is more of it held in full precision than one tensor, its embeddings and its head. `between` is called
    now and then meanwhile, to give freed memory back: quantising a matrix takes ten times its size for a moment.
    """
    directory = locate(name)
    require_original(directory, read_json(directory / "config.json"))
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    model = quantize(config, read_lazily(directory, between), compute=compute, device=device)
    if exact_norms and compute != torch.float32:
        keep_norms_exact(model)
    model.name_or_path = str(directory)  # a saved adapter names its base
    if (directory / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(directory, local_files_only=True)
    return model


def require_original(directory: Path, config: Mapping[str, Any]) -> None:
    """DataError where a model is quantised already."""
    if config.get("quantization_config"):
        raise DataError(
            f"{directory}: the model is quantised already",
            rule="a run over a base in 4 bits quantises the original itself, and merges into the original",
            remedy="name the model that this one was made from",
        )


def quantize(
    config: Any, weights: Mapping[str, Lazy], *, compute: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """A causal LM of a config with these weights, each quantised as it is read; see `load_quantized`."""
    require_bitsandbytes()
    with torch.device("meta"):
        blank = AutoModelForCausalLM.from_config(config)
    kind: Any = type(blank)
    try:
        model: PreTrainedModel = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(weights),
            dtype=compute,
            device_map={"": device},
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=compute,
                llm_int8_skip_modules=_not_quantized(blank),
            ),
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"{config.name_or_path} (model_type {config.model_type!r}): {error}",
            rule="the model's linear layers can be quantised by the installed transformers and bitsandbytes",
            remedy="check that the directory is whole, or train with adapter=lora",
        ) from error
    for layer in quantized_layers(model):
        # bitsandbytes would lay the weights out anew, with scales rounded to bf16, at the first evaluation on a
        # CPU with AVX-512 bf16: training after it would go on with another base than it began with.
        layer.support_avx512bf16_for_cpu = False
    return model


def _not_quantized(model: PreTrainedModel) -> list[str] | None:
    """Names of the linear layers that are left alone; None where those are only transformers' own choice, the head.

    A row of 96 weights is one block and a half. bitsandbytes 0.50 gives such a matrix back wrong on a CPU, by a third
    of its largest number, and says nothing.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))
    }
    head = get_keys_to_not_convert(model)
    uneven = [name for name, module in layers.items() if _width(module) % BLOCK and name not in head]
    if uneven and len(uneven) == len(layers.keys() - set(head)):
        raise DataError(
            f"{uneven[0]}: {_width(layers[uneven[0]])} inputs, and no layer of {type(model).__name__} fits better",
            rule=f"a layer is put in 4 bits by blocks of {BLOCK} weights, which its number of inputs is a multiple of",
            remedy="train with adapter=lora: a model that small has little to save",
        )
    return [*head, *map(re.escape, uneven)] if uneven else None


def left_alone(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that stay as they are: those above, or transformers' own choice."""
    return _not_quantized(model) or list(get_keys_to_not_convert(model))


def _width(layer: nn.Module) -> int:
    """How many inputs a linear layer has."""
    weight: Any = layer.weight
    return int(weight.shape[0] if isinstance(layer, Conv1D) else weight.shape[1])


def require_bitsandbytes() -> None:
    """UsageError without it."""
    if not is_bitsandbytes_available():
        raise UsageError(
            "bitsandbytes is not installed",
            rule="a base in 4 bits, and the 8-bit and paged optimisers, need bitsandbytes",
            remedy="pip install 'burnish[qlora]', or train with adapter=lora and optimizer=adamw",
        )


def read_lazily(directory: Path, between: Callable[[], None] = lambda: None) -> dict[str, Lazy]:
    """Every tensor of a model directory by name, read from its file, and not mapped, when asked for."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({directory / file for file in read_json(index)["weight_map"].values()})
    elif (directory / "model.safetensors").is_file():
        files = [directory / "model.safetensors"]
    else:
        files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"{directory}: no .safetensors file",
            rule="weights are read from safetensors only, for a pickle can run code",
            remedy="convert the model: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...) elsewhere",
        )
    weights: dict[str, Lazy] = {}
    pause = _Pause(between)
    for path in files:
        file = safe_open(path, framework="pt", backend="pread")
        names = file.keys()  # type: ignore[no-untyped-call]
        weights.update({name: _Read(file.get_slice(name), pause) for name in names})  # type: ignore[no-untyped-call]
    return weights


class _Pause:
    """Calls `between` before the next tensor, once so many bytes have been read."""

    EVERY = 16e6

    def __init__(self, between: Callable[[], None]) -> None:
        self.between, self.read = between, 0

    def before(self) -> None:
        if self.read > self.EVERY:
            self.between()
            self.read = 0


class _Read:
    """A tensor of a file."""

    def __init__(self, inner: Any, pause: _Pause) -> None:
        self.inner, self.pause = inner, pause

    def __getitem__(self, index: Any) -> Tensor:
        self.pause.before()
        tensor: Tensor = self.inner[index]
        self.pause.read += tensor.nbytes
        return tensor

    def get_shape(self) -> list[int]:
        return list(self.inner.get_shape())

    def get_dtype(self) -> str:
        return str(self.inner.get_dtype())


def quantized_layers(model: nn.Module) -> Iterator[Any]:
    """The linear layers in 4 bits, wherever an adapter may have put them."""
    return (
        module for module in model.modules() if type(module).__name__ == "Linear4bit" and _is_base(module)
    )


def _is_base(module: nn.Module) -> bool:
    """PEFT's layer around a quantised one bears the same name, and has the quantised one inside."""
    return type(module).__module__.startswith("bitsandbytes.")


def is_quantized(model: nn.Module) -> bool:
    """Whether any linear layer is in 4 bits."""
    return next(quantized_layers(model), None) is not None


@torch.no_grad()
def compute_in_fp32(model: nn.Module) -> None:
    """Let a model compute in fp32 with the same quantised weights: the truth that a run in bf16 is compared with."""
    for layer in quantized_layers(model):
        layer.compute_dtype = torch.float32
        layer.weight.quant_state.dtype = torch.float32  # in which weights are unpacked for the backward pass


class InFp32:
    """Two hooks around a norm: its input as fp32, its result in the dtype that came in."""

    def __init__(self) -> None:
        self.asked = torch.float32

    def before(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Take every float as fp32."""
        self.asked = given[0].dtype
        return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in given)

    def after(self, module: nn.Module, given: tuple[Any, ...], made: Tensor) -> Tensor:
        """Give back what was asked for."""
        return made.to(self.asked)


def is_exact_norm_hook(hook: Any) -> bool:
    """Whether a module's hook is one of `InFp32`, which a forward of our own may do without: it says the same."""
    return isinstance(getattr(hook, "__self__", None), InFp32)


def keep_norms_exact(model: nn.Module) -> None:
    """Hold and compute the model's norms in fp32."""
    for module in norms(model):
        module.float()
        hooks = InFp32()
        module.register_forward_pre_hook(hooks.before)
        module.register_forward_hook(hooks.after)


def norms(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that are norms, by their names, as transformers and torch have them: LlamaRMSNorm, LayerNorm."""
    for module in model.modules():
        if "norm" in type(module).__name__.lower() and any(True for _ in module.parameters(recurse=False)):
            yield module


def exact_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that stay in fp32 whatever the model computes in: a quantised model's norms."""
    if not is_quantized(model):
        return []
    return [parameter for module in norms(model) for parameter in module.parameters(recurse=False)]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a model's linear layers in 4 bits with all their scales, what they are in bf16, and of all else.

    `matrices_left` counts the parameters of other matrices than embedding and head that are not in 4 bits: fused
    experts, for instance, which are no linear layers.
    """

    quantized: int
    in_bf16: int
    rest: int
    matrices_left: int

    @property
    def share(self) -> float:
        """The linear layers' size over their size in bf16."""
        return self.quantized / max(1, self.in_bf16)

    def __str__(self) -> str:
        left = f"; {self.matrices_left:,} parameters of other matrices stay as they are" * bool(
            self.matrices_left
        )
        return (
            f"linear layers in 4 bits: {self.quantized / 1e6:,.1f} MB, {self.share:.2f} of bf16; all else "
            f"{self.rest / 1e6:,.1f} MB{left}"
        )


def footprint(model: PreTrainedModel) -> Footprint:
    """Measure the base model's weights; every storage counts once."""
    seen: set[int] = set()
    quantized = in_bf16 = 0
    packed = set()
    for layer in quantized_layers(model):
        packed.add(id(layer.weight))
        if hasattr(layer, WAITING):
            numbers = getattr(layer, WAITING).numel()
            in_bf16 += 2 * numbers
            quantized += bytes_in_4_bits(numbers)
            continue
        state = layer.weight.quant_state
        in_bf16 += 2 * state.shape.numel()
        parts = [layer.weight, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        quantized += sum(_new_bytes(part, seen) for part in parts)
    rest = [parameter for parameter in model.parameters() if id(parameter) not in packed]
    tables = {
        id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None
    }
    left = sum(p.numel() for p in rest if p.dim() >= 2 and id(p) not in tables)
    return Footprint(quantized, in_bf16, sum(_new_bytes(p, seen) for p in rest), left)


def bytes_in_4_bits(numbers: int) -> int:
    """Bytes of a matrix in 4 bits: codes, scales, in fp32 scales of 256 scales and their mean, and two code books."""
    scales = -(-numbers // BLOCK)
    return numbers // 2 + scales + 4 * (-(-scales // 256) + 1 + 16 + 256)


def _new_bytes(tensor: Tensor, seen: set[int]) -> int:
    storage = tensor.untyped_storage()
    if storage.data_ptr() in seen:
        return 0
    seen.add(storage.data_ptr())
    return storage.nbytes()
