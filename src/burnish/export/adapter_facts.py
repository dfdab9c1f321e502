"""What an adapter is, read from its own files: what it is called, who loads it, whether it merges, how it is undone.

facts = read_adapter(run.adapter)
facts.vllm_obstacles()   -> ["it is DoRA: vLLM applies no magnitude vector"]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from burnish.errors import DataError, UsageError
from burnish.models.locate import read_json

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's --max-lora-rank takes."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

# These initialisations of LoRA also change the base; such an adapter fits the changed base alone.
CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """One adapter directory in PEFT's format: its config, the names and the dtypes (`BF16`) of its tensors."""

    directory: Path
    config: dict[str, Any]
    tensors: tuple[str, ...]
    dtypes: tuple[str, ...]

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
    """The facts of an adapter directory; UsageError where it is in a format that only burnish reads."""
    if not (directory / CONFIG).is_file() or not (directory / WEIGHTS).is_file():
        raise UsageError(
            f"{directory}: no {CONFIG} beside {WEIGHTS}, so it is not in PEFT's format",
            rule="a bottleneck adapter computes between the layers: it cannot be merged, and PEFT, vLLM and "
            "llama.cpp have no such method",
            remedy=f"serve the run itself (burnish chat {directory.parent}), or train with adapter: lora",
        )
    config = read_json(directory / CONFIG)
    try:
        with safe_open(directory / WEIGHTS, framework="pt") as file:
            tensors = tuple(file.keys())
            dtypes = {file.get_slice(name).get_dtype() for name in tensors}
    except Exception as error:  # safetensors' own error class is not exported under one name
        raise DataError(
            f"{directory / WEIGHTS}: {error}",
            rule="an adapter's weights are a whole safetensors file",
            remedy="restore the file, or train again",
        ) from error
    return AdapterFacts(directory, config, tensors, tuple(sorted(dtypes)))
