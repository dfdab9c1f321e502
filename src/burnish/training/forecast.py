"""What a run will take, from arithmetic: memory by part, operations, time; and what to change where it does not fit.

    weights      N x 2 bytes in bf16                     70B: 140 GB, before anything is trained
    masters      trained x 4, where the model computes in bf16
    gradients    trained x 4
    optimiser    trained x 8 (AdamW's two moments)
    activations  tokens of a micro-batch x bytes a token, layer by layer; with checkpointing, one layer whole
    logits       one chunk of graded rows x vocabulary

A measured step of the real model, where it is at hand, stands beside the arithmetic and corrects it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from burnish.losses.cross_entropy import CHUNK
from burnish.models.anatomy import Anatomy
from burnish.parallel.hardware import CONTEXT_BYTES
from burnish.recipe.choices import Adapter, DType, Optimizer
from burnish.recipe.methods import METHODS
from burnish.recipe.schema import Recipe

GB = 1e9
BLOCK_BYTES = 2**22
MOMENTS = {
    Optimizer.ADAMW: 8,
    Optimizer.PAGED_ADAMW_32BIT: 8,  # may leave the device when it is full; no less is held by then
    Optimizer.ADAMW_8BIT: 2,
    Optimizer.PAGED_ADAMW_8BIT: 2,
    Optimizer.ADAFACTOR: 0,
    Optimizer.MUON: 4,
    Optimizer.SGD: 4,
}
FOUR_BITS = 33 / 64
"""Bytes of a weight in NF4 with double quantisation: 32 of codes and 1 of scale for 64 of them."""

_WIDTH = {DType.BFLOAT16: 2, DType.FLOAT32: 4}
RESERVE = 1.1
"""How much more than the sum of its parts a process takes: workspaces, and blocks that do not fit again."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak bytes by part; `process` is what interpreter, libraries or CUDA hold before a model is there."""

    weights: float
    masters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    process: float

    @property
    def total(self) -> float:
        """All parts, with the reserve."""
        return float(RESERVE * sum(asdict(self).values()))


@dataclass(frozen=True, slots=True)
class Work:
    """What a run computes: tokens but those that shared prefixes spare; `mean_context` is how many a token sees."""

    steps: int
    computed_tokens: float
    graded_tokens: float
    mean_context: float
    pack_tokens: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A step of the real model on this machine: seconds, tokens in it, peak bytes of the process."""

    seconds: float
    tokens: int
    graded_tokens: int
    peak_bytes: int


def memory_of(
    recipe: Recipe, anatomy: Anatomy, *, trained: int, pack_tokens: int, process: float = CONTEXT_BYTES
) -> Memory:
    """The peak memory of a step by part, in bytes."""
    width = _WIDTH[recipe.dtype]
    per_layer = anatomy.activation_values * width
    again = recipe.gradient_checkpointing is True  # `auto` is without, until it is found not to fit
    kept = anatomy.hidden * width if again else per_layer
    layers = pack_tokens * (kept * anatomy.layers + (per_layer if again else 0))
    rows = min(CHUNK["cpu"], pack_tokens)
    table = anatomy.vocabulary * anatomy.hidden
    # A chunk's part of a trained head's gradient, on its way to the sum; a CPU makes it a slice at a time.
    head = table * width if recipe.adapter == Adapter.FULL else 0
    return Memory(
        weights=_weights(recipe, anatomy),
        masters=trained * 4.0 if width == 2 else 0.0,
        gradients=trained * 4.0,
        optimizer=trained * float(MOMENTS[recipe.optimizer]),
        activations=float(layers),
        logits=float(rows * anatomy.vocabulary * width + BLOCK_BYTES + head),
        process=process,
    )


def _weights(recipe: Recipe, anatomy: Anatomy) -> float:
    """Bytes of the model itself: of layers in 4 bits, where the method has them so, and of the vocabulary's tables."""
    width = _WIDTH[recipe.dtype]
    if not METHODS[recipe.adapter].quantised:
        return float(anatomy.parameters * width)
    tables = anatomy.parameters - anatomy.layer_parameters
    return tables * width + anatomy.layer_parameters * FOUR_BITS


def operations(recipe: Recipe, anatomy: Anatomy, work: Work) -> float:
    """The multiply-adds of a run, counted as two each: forward, backward to the inputs, backward to trained weights.

    Kaplan et al. 2020 (2N a token forward) without the embedding, with the head on graded rows only.
    """
    passes = 3 if recipe.adapter == Adapter.FULL else 2
    again = 1 if recipe.gradient_checkpointing is True else 0
    dense = 2.0 * anatomy.layer_parameters * work.computed_tokens * (passes + again)
    # Scores, and the values that they weigh, over what a token sees on average.
    attention = 4.0 * work.mean_context * anatomy.layers * anatomy.attention_width * work.computed_tokens
    head = 2.0 * anatomy.hidden * anatomy.vocabulary * work.graded_tokens * passes
    return dense + attention * (3 + again) + head


@dataclass(frozen=True, slots=True)
class Forecast:
    """Memory, time and advice for one run on one kind of device."""

    anatomy: Anatomy
    trained: int
    work: Work
    memory: Memory
    operations: float
    device: str
    device_memory: float
    devices: int
    rate: float
    measured: Measured | None
    waiting: float = 0.0

    @property
    def share_of_peak(self) -> str:
        """What the time assumes, in words."""
        return f"{self.rate / 1e12:,.1f} TFLOP/s a device"

    @property
    def seconds(self) -> float:
        """The run's time at the rate, and what it waits for other devices."""
        return self.operations / (self.rate * self.devices) + self.waiting

    @property
    def needed(self) -> float:
        """Bytes on each device: the measured peak where there is one, else the arithmetic."""
        return self.memory.total if self.measured is None else float(self.measured.peak_bytes)

    @property
    def fits(self) -> bool:
        """Whether that is within the device's memory."""
        return self.needed <= self.device_memory

    def as_dict(self) -> dict[str, Any]:
        """The forecast as `--json` prints it; bytes, seconds, operations."""
        return {
            "parameters": self.anatomy.parameters,
            "trainable_parameters": self.trained,
            "steps": self.work.steps,
            "computed_tokens": round(self.work.computed_tokens),
            "graded_tokens": round(self.work.graded_tokens),
            "memory": {name: round(value) for name, value in asdict(self.memory).items()},
            "predicted_bytes": round(self.memory.total),
            "needed_bytes": round(self.needed),
            "device": self.device,
            "devices": self.devices,
            "device_bytes": round(self.device_memory),
            "fits": self.fits,
            "operations": self.operations,
            "operations_per_second": self.rate,
            "seconds": round(self.seconds, 3),
            "measured": None if self.measured is None else asdict(self.measured),
        }


def what_to_change(forecast: Forecast, recipe: Recipe) -> Iterator[str]:
    """For a run that does not fit: each change that helps, with what it comes to."""
    if forecast.fits:
        return
    memory, anatomy, room = forecast.memory, forecast.anatomy, forecast.device_memory
    weights = anatomy.parameters * 2
    yield (
        f"{forecast.needed / GB:,.1f} GB are needed and {room / GB:,.1f} GB are there; the weights alone, in bf16, "
        f"are {weights / GB:,.1f} GB"
    )
    if memory.activations > 0.2 * memory.total and recipe.gradient_checkpointing is not True:
        less = recipe.model_copy(update={"gradient_checkpointing": True})
        yield _alternative("gradient_checkpointing=true", less, forecast, forecast.trained)
    if memory.activations > 0.2 * memory.total and recipe.micro_batch_size != 1:
        yield "micro_batch_size=1: activations of one row at a time; the loss stays the same"
    if recipe.adapter == Adapter.FULL:
        lora = recipe.model_copy(update={"adapter": Adapter.LORA})
        yield _alternative("adapter=lora", lora, forecast, anatomy.lora_parameters(recipe.lora_r))
    if weights > 0.9 * room:
        least = -(-int(RESERVE * weights) // int(0.9 * room))
        yield (
            f"no adapter makes the weights smaller: sharded over at least {least} such devices they fit, "
            f"or in 4 bits, {anatomy.parameters * 0.55 / GB:,.1f} GB, on one with more than that"
        )


def _alternative(name: str, recipe: Recipe, forecast: Forecast, trained: int) -> str:
    memory = memory_of(
        recipe,
        forecast.anatomy,
        trained=trained,
        pack_tokens=forecast.work.pack_tokens,
        process=forecast.memory.process,
    )
    verdict = "fits" if memory.total <= forecast.device_memory else "does not fit yet"
    return f"{name}: {memory.total / GB:,.1f} GB, which {verdict}"
