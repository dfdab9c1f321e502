"""On one GPU of 80 GB or more: Llama's 70B shape in 4 bits, one training step at 2,048 tokens; and 8B three ways.

    python benchmarks/gpu/qlora_70b.py                      where no GPU is at hand: says so, exits 0, no figure
    python benchmarks/gpu/qlora_70b.py --shape 8b           full (8-bit moments), LoRA, QLoRA: peak and tokens/s
    python benchmarks/gpu/qlora_70b.py --smoke              a toy shape, on the CPU too: does the script run?

Random weights, made tensor by tensor on the device and quantised there by burnish's own loader: nothing of 140 GB is
ever on disk or in memory. The step is burnish's: its adapter, masters, forward, checkpointing and optimiser.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from burnish.parallel.runtime import peak_memory_bytes, prepare_process

prepare_process()

import torch  # noqa: E402  # the allocator is set before torch is imported
import transformers  # noqa: E402

from burnish.adapters.apply import apply_adapter, describe_trainable  # noqa: E402
from burnish.data.pack import pack_all  # noqa: E402
from burnish.models.forward import open_forward, pack_attention  # noqa: E402
from burnish.models.quantized import exact_parameters, footprint, quantize  # noqa: E402
from burnish.optim.build import Optimizer  # noqa: E402
from burnish.optim.masters import Masters  # noqa: E402
from burnish.recipe.schema import Recipe  # noqa: E402
from burnish.types import Example  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
SHAPES = {
    "70b": {
        "hidden": 8192,
        "layers": 80,
        "heads": 64,
        "kv_heads": 8,
        "intermediate": 28_672,
        "vocab": 128_256,
    },
    "8b": {
        "hidden": 4096,
        "layers": 32,
        "heads": 32,
        "kv_heads": 8,
        "intermediate": 14_336,
        "vocab": 128_256,
    },
    "toy": {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 128, "vocab": 512},
}
METHODS = {"70b": ("qlora",), "8b": ("full", "lora", "qlora"), "toy": ("full", "lora", "qlora")}
OPTIMIZERS = {"full": "adamw_8bit", "lora": "adamw", "qlora": "paged_adamw_8bit"}
LIMIT = 80e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=("70b", "8b"), default="70b")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a toy shape; on the CPU where there is no GPU")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.smoke:
        print("no GPU is at hand: nothing measured")
        return
    shape, tokens = ("toy", 128) if given.smoke else (given.shape, given.tokens)
    found = {method: measure(shape, method, tokens, given.steps) for method in METHODS[shape]}
    print(json.dumps(found, indent=1))
    if not given.smoke:
        name = torch.cuda.get_device_name().replace(" ", "-")
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{date.today()}-{name}-{shape}-weights.json").write_text(
            json.dumps(found, indent=1) + "\n"
        )
    if shape == "70b" and found["qlora"]["peak_bytes"] > LIMIT:
        sys.exit(f"the peak, {found['qlora']['peak_bytes'] / 1e9:.1f} GB, is above {LIMIT / 1e9:.0f} GB")


class Random:
    """A tensor that is drawn when it is asked for, as `burnish.models.quantized.Lazy` wants it."""

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.shape, self.device = shape, device

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return "BF16"

    def __getitem__(self, index: Any) -> torch.Tensor:
        if len(self.shape) == 1:
            return torch.ones(self.shape, dtype=torch.bfloat16, device=self.device)
        return torch.randn(self.shape, dtype=torch.bfloat16, device=self.device).mul_(0.02)


def config_of(shape: str) -> transformers.LlamaConfig:
    size = SHAPES[shape]
    return transformers.LlamaConfig(
        hidden_size=size["hidden"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        intermediate_size=size["intermediate"],
        vocab_size=size["vocab"],
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    )


def make_model(shape: str, *, quantised: bool, device: torch.device) -> Any:
    config = config_of(shape)
    if quantised:
        with torch.device("meta"):
            names = transformers.LlamaForCausalLM(config).state_dict()
        weights = {name: Random(tensor.shape, device) for name, tensor in names.items()}
        return quantize(config, weights, compute=torch.bfloat16, device=device)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            return transformers.LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def measure(shape: str, method: str, tokens: int, steps: int) -> dict[str, Any]:
    """Peak bytes, seconds of each step and tokens a second after the first, of one row of `tokens`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    recipe = Recipe(model="random", datasets=({"path": "random"},), adapter=method)
    model = make_model(shape, quantised=method == "qlora", device=device)
    weights = footprint(model)
    loading_peak, loading = peak_memory_bytes(), time.perf_counter() - started
    tuned = apply_adapter(model, recipe)
    masters = Masters(tuned, compute=torch.bfloat16, exact=exact_parameters(tuned))
    tuned.gradient_checkpointing_enable({"use_reentrant": False})
    for module in tuned.modules():  # transformers checkpoints a layer in training mode only
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
    optimizer = Optimizer(
        masters.parameters, name=OPTIMIZERS[method], weight_decay=0.0, embeddings=frozenset()
    )
    forward = open_forward(tuned, packed=True)
    seconds, losses = [], []
    for step in range(steps):
        at = time.perf_counter()
        losses.append(take_step(forward, masters, optimizer, row(shape, tokens, step)))
        seconds.append(time.perf_counter() - at)
    trained = describe_trainable(tuned)
    return {
        "optimizer": OPTIMIZERS[method],
        "trainable": trained.parameters,
        "parameters": trained.of,
        "weights": str(weights) if weights.quantized else "bf16",
        "loading_seconds": loading,
        "loading_peak_bytes": loading_peak,
        "peak_bytes": peak_memory_bytes(),
        "step_seconds": seconds,
        "tokens_per_second": tokens * (steps - 1) / sum(seconds[1:]) if steps > 1 else None,
        "losses": losses,
        "flat": forward.flat or forward.why_not_flat,
    }


def row(shape: str, tokens: int, seed: int) -> Example:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, SHAPES[shape]["vocab"], (tokens,), generator=draw).tolist()
    return Example(row=0, source=0, turns=(), input_ids=ids, weights=[0.0] + [1.0] * (tokens - 1))


def take_step(forward: Any, masters: Masters, optimizer: Optimizer, example: Example) -> float:
    with pack_attention(forward.model, packed=forward.packed):
        (pack,) = pack_all([example], max_tokens=len(example))
        summed, _ = forward.loss(pack)
        summed.backward()
    masters.clip(1.0, over=pack.weight)
    optimizer.step(1e-4)
    masters.refresh()
    masters.zero_grad()
    return float(summed.detach()) / pack.weight


if __name__ == "__main__":
    main()
