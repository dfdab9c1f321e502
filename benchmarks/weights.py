"""Which weights move, and what it costs: every method on the same model, rows and steps, at equal tuning effort.

    make bench-weights                                  every cell that docs/benchmarks/weights.json lacks
    python benchmarks/weights.py --budget 600           so many seconds of it; the next call goes on
    python benchmarks/weights.py --methods lora,qlora   only these
    python benchmarks/weights.py --report               the table and the picture from what is there

A cell is one process, one training run. On marble: each method at `--rates` learning rates, a factor of two apart
around its default, with one seed; where the best is the first or the last, one more beyond it, until it is neither;
then the best rate with `--seeds` seeds. On a 135M Llama with random weights: a few steps, for memory and time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from burnish.recipe.choices import Adapter
from burnish.recipe.schema import default_rate

HERE = Path(__file__).resolve()
STORE = HERE.parent.parent / "docs" / "benchmarks" / "weights.json"
MODELS = HERE.parent.parent / "build" / "weights"

MARBLE_PARAMETERS = 4_000_000
BATCH = 16
HELD_OUT = 100
"""The last of marble's thousand demonstrations are held out, the same for every seed."""

STEPS_135M, BATCH_135M, TURNS_135M = 4, 4, 6
MOST_RATES = 7

EXTRA = {"lora+adamw_8bit": ("lora", {"optimizer": "adamw_8bit"})}
"""Arms that are a method with another key."""

Cell = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default=",".join([*(one.value for one in Adapter), *EXTRA]))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rates", type=int, default=3, help="learning rates tried first, with one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=300, help="asked of each half")
    parser.add_argument(
        "--budget", type=float, default=float("inf"), help="begin no cell after so many seconds"
    )
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--cell", help="used by the script itself: one cell as JSON, its result on stdout")
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(run_cell(json.loads(given.cell))))
        return
    if not given.report:
        run_all(given)
    from weights_report import write_report

    write_report(load(), given.epochs)


def run_all(given: argparse.Namespace) -> None:
    """Run what is not there yet, one cell after the other, keeping each as soon as it is done."""
    started = time.monotonic()
    for arm in given.methods.split(","):
        for cell in missing(arm, given):
            if time.monotonic() - started > given.budget:
                sys.exit("the budget is spent; call again to go on")
            say(f"{cell['part']} {arm} {cell.get('rate', '')} seed {cell.get('seed', '')} ...")
            keep({**cell, **in_own_process(cell)})


def missing(arm: str, given: argparse.Namespace) -> Iterator[Cell]:
    """The arm's next cell, again and again: each is chosen after those before it are in the store."""
    if not found(part="135m", arm=arm):
        yield {"part": "135m", "arm": arm}
    common = {"part": "marble", "arm": arm, "epochs": given.epochs, "questions": given.questions}
    for rate in first_rates(arm, given.rates):
        if not found(**common, rate=rate, seed=0):
            yield {**common, "rate": rate, "seed": 0}
    while (rate := beyond(found(**common, seed=0))) is not None:
        yield {**common, "rate": rate, "seed": 0}
    best = best_rate(found(**common, seed=0))
    for seed in range(1, given.seeds):
        if not found(**common, rate=best, seed=seed):
            yield {**common, "rate": best, "seed": seed}


def first_rates(arm: str, count: int) -> list[float]:
    """A factor of two apart, around what the method has by default for a model of marble's size."""
    middle = default_rate(Adapter(method_of(arm)[0]), MARBLE_PARAMETERS)
    return [float(f"{middle * 2.0 ** (k - count // 2):.2g}") for k in range(count)]


def beyond(cells: list[Cell]) -> float | None:
    """The rate to try next, where the best so far is at an end of those tried."""
    rates = sorted({cell["rate"] for cell in cells})
    if not rates or len(rates) >= MOST_RATES:
        return None
    best = best_rate(cells)
    if best == rates[-1]:
        return float(f"{best * 2:.2g}")
    return float(f"{best / 2:.2g}") if best == rates[0] else None


def best_rate(cells: list[Cell]) -> float:
    """The rate with the lowest held-out loss; a run that diverged has none."""
    return float(min(cells, key=lambda cell: cell["held_out"])["rate"])


def method_of(arm: str) -> tuple[str, dict[str, Any]]:
    """An arm's method, and its keys besides."""
    return EXTRA.get(arm, (arm, {}))


def load() -> list[Cell]:
    return json.loads(STORE.read_text()) if STORE.exists() else []


def found(**wanted: Any) -> list[Cell]:
    return [cell for cell in load() if all(cell.get(key) == value for key, value in wanted.items())]


def keep(cell: Cell) -> None:
    """Add a cell to the store; a kill leaves the old store or the new one."""
    STORE.parent.mkdir(parents=True, exist_ok=True)
    draft = STORE.with_suffix(".tmp")
    draft.write_text("[\n" + ",\n".join(json.dumps(one) for one in [*load(), cell]) + "\n]\n")
    draft.replace(STORE)


def in_own_process(cell: Cell) -> Cell:
    """What a fresh process measures: its peak memory is the run's."""
    done = subprocess.run(
        [sys.executable, str(HERE), "--cell", json.dumps(cell)], stdout=subprocess.PIPE, text=True, check=True
    )
    result: Cell = json.loads(done.stdout.splitlines()[-1])
    return result


def run_cell(cell: Cell) -> Cell:
    """Train by one cell's settings; only in its own process."""
    from burnish.parallel.runtime import prepare_process

    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        measured = on_marble(cell, Path(folder)) if cell["part"] == "marble" else on_135m(cell, Path(folder))
    return {**measured, **provenance()}


def on_marble(cell: Cell, folder: Path) -> Cell:
    """Held-out loss, and exact answers about the half that no demonstration names."""
    from burnish.errors import Diverged
    from burnish.experiments.thesis import score
    from burnish.marble.demonstrations import demonstrations
    from burnish.models.assistant import load_assistant

    rows = demonstrations()
    write_rows(folder / "train.jsonl", rows[:-HELD_OUT])
    write_rows(folder / "held_out.jsonl", rows[-HELD_OUT:])
    method, keys = method_of(cell["arm"])
    try:
        measured, result = train_measured(
            model="marble",
            adapter=method,
            datasets=str(folder / "train.jsonl"),
            val_datasets=str(folder / "held_out.jsonl"),
            learning_rate=cell["rate"],
            seed=cell["seed"],
            num_epochs=cell["epochs"],
            global_batch_size=BATCH,
            max_length=256,
            output_dir=str(folder),
            run_name="run",
            **keys,
        )
    except Diverged:
        return {"held_out": float("inf")}
    scores = score(load_assistant(str(result.run)), number=cell["questions"])
    shares = {"unseen": scores.unseen, "seen": scores.seen, "stops": scores.stops}
    return {**measured, "held_out": result.eval_loss, **shares, "merge": result.merge}


def on_135m(cell: Cell, folder: Path) -> Cell:
    """Peak memory and time of a step where weights and moments weigh more than the interpreter."""
    from burnish.marble.demonstrations import demonstrations
    from burnish.recipe.load import load_recipe
    from burnish.training.run import prepare
    from burnish.training.step import take_step

    single = [row["messages"] for row in demonstrations(STEPS_135M * BATCH_135M * TURNS_135M)]
    rows = [
        {"messages": [message for one in single[at : at + TURNS_135M] for message in one]}
        for at in range(0, len(single), TURNS_135M)
    ]
    write_rows(folder / "train.jsonl", rows)
    method, keys = method_of(cell["arm"])
    recipe = load_recipe(
        None,
        {
            "model": str(make_135m()),
            "adapter": method,
            "datasets": str(folder / "train.jsonl"),
            "learning_rate": 1e-4,
            "max_steps": STEPS_135M,
            "global_batch_size": BATCH_135M,
            **keys,
        },
    ).recipe
    # Without the oracle: its fp32 copy, held once before step 0, would be the peak of every method.
    session = prepare(recipe)
    return summary([take_step(session) for _ in range(STEPS_135M)], session.trainable, session.footprint)


def train_measured(**keys: Any) -> tuple[Cell, Any]:
    """Train, all of a run included; what it measured and the run's result."""
    from burnish.recipe.load import load_recipe
    from burnish.training.events import Event, Ready, Stepped
    from burnish.training.run import train

    steps: list[Stepped] = []
    ready: list[Ready] = []

    def see(event: Event) -> None:
        if isinstance(event, Stepped):
            steps.append(event)
        elif isinstance(event, Ready):
            ready.append(event)

    result = train(load_recipe(None, keys), show=see)
    return summary(steps, ready[0], None), result


def summary(steps: list[Any], trained: Any, footprint: Any) -> Cell:
    """What memory peaked at by the last step, and how long a step took in the median, the first left out."""
    counts = (
        (trained.trainable, trained.parameters)
        if hasattr(trained, "trainable")
        else (trained.parameters, trained.of)
    )
    return {
        "trainable": counts[0],
        "parameters": counts[1],
        "steps": len(steps),
        "peak_bytes": steps[-1].memory_bytes,
        "step_seconds": statistics.median(step.seconds for step in steps[1:]),
        "tokens_per_step": statistics.mean(step.tokens for step in steps),
        "train_loss": steps[-1].loss,
        "linear_layers_of_bf16": None if footprint is None else footprint.share,
    }


def make_135m() -> Path:
    """The shape of SmolLM-135M with random weights and marble's tokenizer, saved once."""
    import torch
    import transformers

    from burnish import marble

    if (MODELS / "135m" / "tokenizer.json").exists():
        return MODELS / "135m"
    config = transformers.LlamaConfig(
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        vocab_size=49_152,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(MODELS / "135m")
    transformers.AutoTokenizer.from_pretrained(marble.DIRECTORY).save_pretrained(MODELS / "135m")
    return MODELS / "135m"


def write_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def provenance() -> Cell:
    from importlib.metadata import version

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE.parent, capture_output=True, text=True, check=False
    )
    names = ("torch", "transformers", "peft", "bitsandbytes")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "versions": {name: version(name) for name in names},
    }


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
