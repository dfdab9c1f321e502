"""What an adapter is, read from its own files: what it is called, who loads it, whether it merges, how it is undone.

facts = read_adapter(run.adapter)
facts.vllm_obstacles()   -> ["it is DoRA: vLLM applies no magnitude vector"]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from burnish.adapters import bottleneck
from burnish.errors import DataError
from burnish.models.locate import read_json

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's --max-lora-rank takes."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

BOTTLENECK = "BOTTLENECK"
"""The `peft_type` that we give to burnish's own format, which PEFT does not have."""

# These initialisations of LoRA also change the base; such an adapter fits the changed base alone.
CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """One adapter directory, in PEFT's format or the bottleneck's: config, names and dtypes of its tensors."""

    directory: Path
    config: dict[str, Any]
    tensors: tuple[str, ...]
    dtypes: tuple[str, ...]

    @property
    def is_bottleneck(self) -> bool:
        """Whether it computes between the layers: it cannot be merged, and PEFT has no such method."""
        return self.config.get("peft_type") == BOTTLENECK

    @property
    def files(self) -> tuple[str, str]:
        """The names of its config and its weights."""
        return (bottleneck.JSON, bottleneck.WEIGHTS) if self.is_bottleneck else (CONFIG, WEIGHTS)

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        patterns = self.config.get("rank_pattern") or {}
        return max(int(rank) for rank in (self.config.get("r") or 1, *patterns.values()))

    @property
    def method(self) -> str:
        """The method and its rank, as people name it."""
        kind = str(self.config.get("peft_type"))
        if kind != "LORA":
            return kind
        kind = "DoRA" if self.config.get("use_dora") else "LoRA"
        return f"{'rank-stabilised ' if self.config.get('use_rslora') else ''}{kind}, rank {self.rank}"

    def vllm_obstacles(self) -> list[str]:
        """Why vLLM could not load this adapter, or would load it and compute something else; empty where it can."""
        say, names = self.config, " ".join(self.tensors)
        found = {
            f"it is {say.get('peft_type')}, not LoRA": say.get("peft_type") != "LORA",
            "it is DoRA, and vLLM applies no magnitude vector": say.get("use_dora"),
            "it trains token rows, and vLLM's adapters hold none": say.get("trainable_token_indices")
            or "token_adapter" in names,
            f"it trains whole modules ({say.get('modules_to_save')})": say.get("modules_to_save"),
            "it holds a whole embedding or head": "embed_tokens.weight" in names or "lm_head.weight" in names,
            "it adapts the embedding or the head": "lora_embedding" in names or "lm_head.lora" in names,
            f"it trains biases ({say.get('bias')})": say.get("bias", "none") != "none",
            "its rank or scale differs by module, and vLLM reads one of each": say.get("rank_pattern")
            or say.get("alpha_pattern"),
            "it adapts fused experts": say.get("target_parameters"),
            f"it was started by {say.get('init_lora_weights')}, which changes the base": self.changes_base,
            f"its rank {self.rank} is above {VLLM_RANKS[-1]}": self.rank > VLLM_RANKS[-1],
        }
        return [reason for reason, is_so in found.items() if is_so]

    @property
    def changes_base(self) -> bool:
        """Whether the adapter fits a base that its own initialisation changed, not the one on disk."""
        start = self.config.get("init_lora_weights")
        return isinstance(start, str) and start.split("_")[0].lower() in CHANGES_THE_BASE

    @property
    def vllm_rank(self) -> int:
        """The smallest value of --max-lora-rank that holds this adapter."""
        return next(rank for rank in VLLM_RANKS if rank >= self.rank)


def read_adapter(directory: Path) -> AdapterFacts:
    """The facts of an adapter directory; DataError where it is not whole."""
    own = (directory / bottleneck.JSON).is_file()
    names = (bottleneck.JSON, bottleneck.WEIGHTS) if own else (CONFIG, WEIGHTS)
    config = read_json(directory / names[0]) | ({"peft_type": BOTTLENECK} if own else {})
    try:
        with safe_open(directory / names[1], framework="pt") as file:
            tensors = tuple(file.keys())
            kinds = {file.get_slice(name).get_dtype() for name in tensors}
    except Exception as error:  # safetensors' own error class is not exported under one name
        raise DataError(
            f"{directory / names[1]}: {error}",
            rule="an adapter's weights are a whole safetensors file",
            remedy="restore the file, or train again",
        ) from error
    return AdapterFacts(directory, config, tensors, tuple(sorted(kind for kind in kinds if "F" in kind)))
