"""The CPU kernels beside torch's operations, in turn in one process: each by itself, and whole steps.

python benchmarks/workloads.py build/bench --shape s30 --sizes alpaca=48,shared_prompt=48
python benchmarks/cpu_kernels.py build/bench/s30 [--pairs 12] [--json]

Medians in milliseconds. A step's two ways take the same updates of the same session; its weights move on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

from burnish.parallel.runtime import prepare_process

prepare_process()

import torch  # noqa: E402  # the allocator is set before torch is imported
from torch import Tensor  # noqa: E402
from workloads import recipe_keys  # noqa: E402

from burnish.data.pack import Pack, build_pack  # noqa: E402
from burnish.kernels.library import why_none, without_kernels  # noqa: E402
from burnish.losses.cross_entropy import PLAIN, Grading, grade_logits  # noqa: E402
from burnish.models.attention import Rule, attend  # noqa: E402
from burnish.models.flat_operations import gated_project, rms_norm  # noqa: E402
from burnish.models.kept_attention import Rotation  # noqa: E402
from burnish.models.reach import Layout  # noqa: E402
from burnish.recipe.load import load_recipe  # noqa: E402
from burnish.training.run import prepare  # noqa: E402
from burnish.training.step import take_step  # noqa: E402
from burnish.types import Example  # noqa: E402

LENGTHS = (213, 150, 300, 180, 350, 90, 220, 200)
HEADS, KV_HEADS, DEPTH, HIDDEN, INNER, VOCABULARY = 6, 2, 64, 384, 1024, 32_768
STEPS = 3
"""Updates that are taken again and again, each with the lengths of its own batch."""


def pack_of(lengths: tuple[int, ...], common: int) -> Pack:
    """Documents of these lengths after `common` tokens that are laid once."""
    prefix = list(range(1, common + 1))
    rows = [
        Example(
            row, 0, (1,), [*prefix, *range(1000 + row, 1000 + row + length)], [0.0] * common + [1.0] * length
        )
        for row, length in enumerate(lengths)
    ]
    return build_pack(rows, share_prefixes=True)


def attention(pack: Pack) -> Callable[[], None]:
    """Forward and backward of one layer's attention."""
    layout, length = Layout.of(pack), len(pack)
    given = [normal(length, heads, DEPTH).requires_grad_() for heads in (HEADS, KV_HEADS, KV_HEADS)]
    angles = torch.rand(length, DEPTH)
    rotation = Rotation(angles.cos().bfloat16(), angles.sin().bfloat16())
    by = normal(length, HEADS, DEPTH)

    def run() -> None:
        torch.autograd.grad(attend(*given, layout, Rule(DEPTH**-0.5), rotation=rotation), given, by)

    return run


def norm() -> Callable[[], None]:
    module = torch.nn.RMSNorm(HIDDEN, eps=1e-6, dtype=torch.bfloat16)
    module.variance_epsilon = 1e-6  # as transformers' are called
    x, by = normal(1_700, HIDDEN).requires_grad_(), normal(1_700, HIDDEN)
    return lambda: void(torch.autograd.grad(rms_norm(x, module), [x, module.weight], by))


def gate() -> Callable[[], None]:
    module = torch.nn.Linear(
        INNER, 8, bias=False, dtype=torch.bfloat16
    )  # thin: the product is not what is measured
    halves = [normal(1_700, INNER).requires_grad_() for _ in range(2)]
    by = normal(1_700, 8)
    return lambda: void(torch.autograd.grad(gated_project(*halves, module), halves, by))


def grading() -> Callable[[], None]:
    """Softmax, loss and gradient of one chunk of logits."""
    logits, rows = normal(256, VOCABULARY), torch.arange(256)
    asked = Grading.of(rows.numpy(), rows.numpy(), torch.ones(256).numpy(), num_rows=256)
    room = torch.empty_like(logits)
    return lambda: void(grade_logits(room.copy_(logits), asked, PLAIN, keep=True))


def step(folder: Path, workload: str, method: str) -> Callable[[], None]:
    keys = recipe_keys(folder, workload, method=method, dtype="bfloat16")
    keys.pop("num_epochs")
    keys |= {"max_steps": 10_000, "output_dir": str(folder / "kernels")}
    session = prepare(load_recipe(None, keys).recipe)

    def run() -> None:
        for number in range(STEPS):
            session.state.step = number
            take_step(session)

    return run


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16()


def void(made: object) -> None:
    del made


def in_turn(run: Callable[[], None], pairs: int) -> tuple[float, float]:
    """Median milliseconds with the kernels and without; who begins changes each time."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(-2, pairs):
        for kernels in (True, False) if number % 2 else (False, True):
            with nullcontext() if kernels else without_kernels():
                started = time.perf_counter()
                run()
                if number >= 0:
                    seconds[kernels].append(time.perf_counter() - started)
    with_them, without = (1e3 * statistics.median(seconds[kernels]) for kernels in (True, False))
    return with_them, without


def parts(folder: Path) -> Iterator[tuple[str, Callable[[], None], int]]:
    """What is measured: its name, how, and how many times at once a pair is worth."""
    yield f"attention, {len(LENGTHS)} documents", attention(pack_of(LENGTHS, 1)), 10
    yield "attention, the same after 300 shared tokens", attention(pack_of(LENGTHS, 300)), 10
    yield "attention, one document of 2,000", attention(pack_of((2000,), 1)), 5
    yield f"RMSNorm of 1,700 x {HIDDEN}", norm(), 20
    yield f"SwiGLU's gate of 1,700 x {INNER}", gate(), 20
    yield f"grading 256 x {VOCABULARY} logits", grading(), 5
    for workload, method in (("alpaca", "full"), ("alpaca", "lora"), ("shared_prompt", "full")):
        yield f"{STEPS} steps: {workload}, {method}", step(folder, workload, method), 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if (why := why_none()) is not None:
        raise SystemExit(f"no kernels here: {why}")
    torch.manual_seed(0)
    figures = {}
    for name, run, pairs in parts(given.folder):
        with_them, without = in_turn(run, given.pairs * pairs)
        figures[name] = {"kernels_ms": round(with_them, 2), "torch_ms": round(without, 2)}
        sys.stderr.write(f"{name}: {with_them:.2f} ms, torch {without:.2f} ms\n")
    if given.json:
        print(json.dumps(figures))
        return
    print("| | torch, ms | kernels, ms | |\n|---|---|---|---|")
    for name, row in figures.items():
        ratio = row["torch_ms"] / row["kernels_ms"]
        print(f"| {name} | {row['torch_ms']:,.2f} | {row['kernels_ms']:,.2f} | {ratio:.2f}x |")


if __name__ == "__main__":
    main()
