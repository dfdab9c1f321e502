"""One training step, side by side: burnish's packed step against a plain padded loop over transformers.

    make bench                                          the shape "s30" below, 48 conversations, batches of 8
    python benchmarks/step.py --rounds 5 --json

Both compute in bf16 over fp32 masters, with the same rows, masks and AdamW; both report graded tokens a second
over the same updates, in turn, and the median of the rounds is printed. The full comparison with other trainers is a
later release's; this one keeps the step honest between releases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from burnish.parallel.runtime import peak_memory_bytes, prepare_process

prepare_process()

import torch  # noqa: E402  # the allocator is set before torch is imported
import torch.nn.functional as F  # noqa: E402
import transformers  # noqa: E402

from burnish import marble  # noqa: E402
from burnish.marble.demonstrations import demonstrations  # noqa: E402
from burnish.recipe.load import load_recipe  # noqa: E402
from burnish.training.run import prepare  # noqa: E402
from burnish.training.session import Session  # noqa: E402
from burnish.training.step import take_step  # noqa: E402

BATCH = 8
UPDATES = 6


def make_model(folder: Path) -> Path:
    """A Llama of 25 million parameters with random weights and marble's tokenizer: the shape, not the knowledge."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(marble.DIRECTORY)
    config = transformers.LlamaConfig(
        hidden_size=384,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=1024,
        vocab_size=32_768,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path) -> Path:
    """Six times eight conversations of very different lengths, several demonstrations in each."""
    single = [row["messages"] for row in demonstrations(400)]
    rows, start = [], 0
    for index in range(BATCH * UPDATES):
        turns = 1 + (index * 7) % 13
        rows.append({"messages": [m for messages in single[start : start + turns] for m in messages]})
        start += turns
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def open_session(model: Path, data: Path) -> Session:
    keys = {"global_batch_size": BATCH, "learning_rate": 1e-4, "max_steps": UPDATES}
    return prepare(load_recipe(None, {"model": str(model), "datasets": str(data), **keys}).recipe)


def packed(session: Session) -> float:
    """Seconds for the epoch's updates through burnish."""
    session.state.step = 0
    started = time.perf_counter()
    for _ in range(UPDATES):
        take_step(session)
    return time.perf_counter() - started


def padded(session: Session, optimizer: torch.optim.Optimizer) -> float:
    """Seconds for the same updates, padded to the longest of each batch, all logits computed."""
    started = time.perf_counter()
    for step in range(UPDATES):
        views = [view for row in session.plan.rows_of(step) for view in session.data.train[row]]
        longest = max(map(len, views))
        ids = torch.tensor([view.input_ids + [0] * (longest - len(view)) for view in views])
        mask = torch.tensor([[1] * len(view) + [0] * (longest - len(view)) for view in views])
        weights = torch.tensor([view.weights + [0.0] * (longest - len(view)) for view in views])
        logits = session.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        (nll @ weights[:, 1:].flatten() / weights.sum()).backward()
        session.masters.clip(1.0)
        optimizer.step()
        session.masters.refresh()
        session.masters.zero_grad()
    return time.perf_counter() - started


def measure(rounds: int) -> dict[str, float]:
    """Both, in turn, after one round each that is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(make_model(Path(folder) / "model"), write_rows(Path(folder) / "rows.jsonl"))
        optimizer = torch.optim.AdamW(session.masters.parameters.values(), lr=1e-4, fused=True)
        arms: dict[str, Callable[[], float]] = {
            "packed": lambda: packed(session),
            "padded": lambda: padded(session, optimizer),
        }
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for number in range(rounds + 1):
            for name, arm in arms.items():
                taken = arm()
                if number:
                    seconds[name].append(taken)
                sys.stderr.write(f"round {number} {name}: {taken:.2f} s\n")
        graded = sum(view.num_graded for views in session.data.train for view in views)
    medians = {name: graded / statistics.median(taken) for name, taken in seconds.items()}
    return {
        "packed_graded_tokens_per_second": round(medians["packed"], 1),
        "padded_graded_tokens_per_second": round(medians["padded"], 1),
        "ratio": round(medians["packed"] / medians["padded"], 3),
        "graded_tokens": graded,
        "peak_memory_mib": peak_memory_bytes() >> 20,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = measure(given.rounds)
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:34} {value:,}")


if __name__ == "__main__":
    main()
