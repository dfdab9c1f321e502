"""On one GPU of the H200's class: LoRA on Llama's 8B shape, lengths as in FineTome-100k, and with a shared prompt.

    make bench-gpu                                          where no GPU is at hand: says so, exits 0, no figure
    python benchmarks/gpu/train_8b.py --steps 30
    python benchmarks/gpu/train_8b.py --smoke               a toy shape, on the CPU too: does the script run?

Random weights and random ids: speed does not depend on what is learnt. It times burnish's own session and step, after
three steps of warm-up, and writes benchmarks/gpu/results/DATE-DEVICE.json. Model FLOPs are those of the paper count
(no recomputation, graded logits only, each shared prefix once); the field's reference recipe, 100,000 rows with LoRA
r=16, took 4 h 45 min on one A100.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from burnish.parallel.runtime import peak_memory_bytes, prepare_process

prepare_process()

import numpy as np  # noqa: E402
import torch  # noqa: E402  # the allocator is set before torch is imported
import transformers  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from arithmetic import necessary  # noqa: E402

from burnish import marble  # noqa: E402
from burnish.data.ledger import Ledger  # noqa: E402
from burnish.data.prepare import Prepared  # noqa: E402
from burnish.data.store import EncodedRows, RowsWriter, StoredOrigins  # noqa: E402
from burnish.models.tokenizer import load_chat_tokenizer  # noqa: E402
from burnish.recipe.load import load_recipe  # noqa: E402
from burnish.training.session import Session, open_session  # noqa: E402
from burnish.training.step import take_step  # noqa: E402
from burnish.types import Document, Example, Origin, Row  # noqa: E402

SHAPES = {
    "8b": {
        "hidden": 4096,
        "layers": 32,
        "heads": 32,
        "kv_heads": 8,
        "intermediate": 14_336,
        "vocab": 128_256,
    },
    "toy": {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 128, "vocab": 8_192},
}
ROWS = 100_000
CUT = 2048
BATCH, WARM_UP = 32, 3
DENSE_BF16 = 989e12
"""FLOP/s of an H100 or H200 (SXM) by its data sheet; what model FLOPs utilisation is a share of."""

SYSTEM_TOKENS = 300


def main() -> None:
    global BATCH, WARM_UP
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe keys")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.smoke:
        print("no GPU is at hand: nothing was measured. Run this on an H200-class machine.")
        return
    if given.smoke:
        BATCH, WARM_UP = 2, 1
    shape = SHAPES["toy" if given.smoke else "8b"]
    steps = 2 if given.smoke else given.steps
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", shape)
        result = {
            "date": str(date.today()),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "shape": shape,
            "keys": given.set,
            "gemm_tflops": gemm_rate(shape) / 1e12,
            "sets": {
                name: measure(model, shape, steps, prefix, given.set)
                for name, prefix in (("finetome lengths", 0), ("shared prompt", SYSTEM_TOKENS))
            },
        }
    print(json.dumps(result, indent=1))
    if not given.smoke:
        name = f"{result['date']}-{result['device'].replace(' ', '-').lower()}.json"
        (HERE / "results" / name).write_text(json.dumps(result, indent=1) + "\n")


def write_model(folder: Path, shape: dict[str, int]) -> Path:
    """Random bf16 weights drawn where it is fast, saved once, so that burnish opens them as any model."""
    config = transformers.LlamaConfig(
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        intermediate_size=shape["intermediate"],
        vocab_size=shape["vocab"],
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = transformers.LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(marble.DIRECTORY).save_pretrained(folder)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return folder


def rows(count: int, vocab: int, prefix: int) -> EncodedRows:
    """Log-normal lengths, mean about 500, cut at 2,048; four fifths graded; `prefix` ids are the same in all."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(mean=5.85, sigma=0.85, size=count), 16, CUT).astype(int)
    system = draw.integers(10, vocab, size=prefix).tolist()
    made = RowsWriter()
    for row, length in enumerate(lengths.tolist()):
        ids = (system + draw.integers(10, vocab, size=length).tolist())[:CUT]
        context = min(len(ids) - 1, prefix + length // 5 + 1)
        weights = [0.0] * context + [1.0] * (len(ids) - context)
        made.append((Example(row=row, source=0, turns=(), input_ids=ids, weights=weights),))
    return made.finish()


def open_(model: Path, data: EncodedRows, keys: list[str]) -> Session:
    placeholder = model / "rows.jsonl"
    placeholder.write_text('{"text": "unused"}\n')
    recipe = load_recipe(
        None,
        {
            "model": str(model),
            "datasets": str(placeholder),
            "adapter": "lora",
            "global_batch_size": BATCH,
            "max_steps": len(data) // BATCH,
            "max_length": CUT,
            "shuffle": False,
            **dict(key.split("=", 1) for key in keys),
        },
    ).recipe
    origins = StoredOrigins.of(
        [Row(number, 0, Origin("random", number), Document("")) for number in range(len(data))]
    )
    tokenizer = load_chat_tokenizer(str(model), chat=False)
    return open_session(recipe, tokenizer, Prepared(data, RowsWriter().finish(), origins, Ledger()))


def measure(model: Path, shape: dict[str, int], steps: int, prefix: int, keys: list[str]) -> dict[str, Any]:
    """Tokens a second, share of the GEMM rate, peak memory and the time that 100,000 such rows would take."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    data = rows(BATCH * (WARM_UP + steps), shape["vocab"], prefix)
    session = open_(model, data, keys)
    seconds, losses = [], []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        losses.append(take_step(session).loss)  # a float: the device has finished
        seconds.append(time.perf_counter() - started)
    timed = data[BATCH * WARM_UP :]
    flops = tokens = 0.0
    for start in range(0, len(timed), BATCH):
        views = [view for batch in timed[start : start + BATCH] for view in batch]
        graded = [[int(weight != 0) for weight in view.weights] for view in views]
        step = necessary([view.input_ids for view in views], graded, shape)
        flops, tokens = flops + step.lora, tokens + step.tokens
    taken = sum(seconds[WARM_UP:])
    return {
        "tokens_per_second": tokens / taken,
        "necessary_tflops_per_second": flops / taken / 1e12,
        "model_flops_utilisation_of_989": flops / taken / DENSE_BF16,
        "mean_tokens_a_row": tokens / len(timed),
        "median_step_seconds": statistics.median(seconds[WARM_UP:]),
        "first_step_seconds": seconds[0],
        "peak_memory_gib": peak_memory_bytes() / 2**30,
        "hours_for_100k_rows": ROWS / len(timed) * taken / 3600,
        "losses": losses[:3],
    }


def gemm_rate(shape: dict[str, int]) -> float:
    """FLOP/s of the model's widest product in bf16, on a quarter pack of tokens."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = (4096 if device == "cuda" else 256, shape["hidden"], 2 * shape["intermediate"])
    one = torch.randn(size[0], size[1], device=device, dtype=torch.bfloat16)
    other = torch.randn(size[1], size[2], device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(30):
        started = time.perf_counter()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2.0 * size[0] * size[1] * size[2] / best


if __name__ == "__main__":
    main()
