"""The forms a finished run leaves the house in, and what each of them is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from burnish.recipe.choices import DType


class Form(StrEnum):
    """What `burnish export --to` takes."""

    HF = "hf"
    ADAPTER = "adapter"
    VLLM = "vllm"
    GGUF = "gguf"
    OLLAMA = "ollama"


class Quantization(StrEnum):
    """How the matrices of a GGUF file are stored; norms and biases are fp32 in every one."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for: a run, a form, a place. `dtype=None` is the dtype that the run's own weights have."""

    run: Path
    form: Form
    out: Path
    dtype: DType | None = None
    quantization: Quantization = Quantization.F16


GGUF_NAME = "model-{}.gguf"
"""The name of the GGUF file in its folder, by quantisation."""
