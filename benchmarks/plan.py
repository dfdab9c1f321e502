"""What planning costs and how full packs are, on lengths like Alpaca's.

    python benchmarks/plan.py              15 million rows: time and peak memory, of the plan and of an epoch's packs
    python benchmarks/plan.py --fill       how full packs are, by batch size and room
    python benchmarks/plan.py --rows 1000000 --batch 512 --max-tokens 8192

No model, no tokens: lengths are drawn from a gamma distribution of mean 180, cut at 2,048.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from burnish.data.plan import PackingPlan, Plan


def alpaca_like(rows: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Lengths drawn in float32, a million at a time: the draw is not what is measured."""
    generator = np.random.default_rng(0)
    lengths = np.empty(rows, dtype=np.uint32)
    for start in range(0, rows, 1_000_000):
        part = lengths[start : start + 1_000_000]
        part[:] = (generator.standard_gamma(2.0, len(part), dtype=np.float32) * 90).clip(8, 2048)
    return lengths


def packing(lengths: np.ndarray, batch: int, max_tokens: int, *, even: bool = False) -> PackingPlan:
    plan = Plan(num_rows=len(lengths), batch_size=batch, num_epochs=3, max_steps=None, seed=0)
    return PackingPlan(plan, lengths, max_tokens=max_tokens, even=even)


def clock(name: str, began: tuple[float, float]) -> tuple[float, float]:
    now = time.perf_counter(), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{name:58} {now[0] - began[0]:8.2f} s wall {now[1] - began[1]:8.2f} s cpu {peak:6,} MiB peak")
    return now


def cost(rows: int, batch: int, max_tokens: int) -> None:
    print(f"{rows:,} rows, batches of {batch}, packs of at most {max_tokens:,} tokens")
    now = clock("python and numpy", (time.perf_counter(), time.process_time()))
    lengths = alpaca_like(rows)
    now = clock("lengths drawn", now)
    planned = packing(lengths, batch, max_tokens)
    steps = planned.plan.num_steps
    asked = sorted({0, steps - 1, *np.random.default_rng(1).integers(0, steps, 30).tolist()})
    for step in asked:
        planned.packs_of(step)
    now = clock(f"packs of {len(asked)} steps anywhere in {steps:,} (3 epochs)", now)
    for step in range(1000):
        planned.plan.rows_of(step)
    now = clock("rows of 1,000 steps", now)
    tokens = packs = 0
    for sizes in planned.sizes():
        tokens += sum(sizes)
        packs += len(sizes)
    clock("the packs of every step of an epoch", now)
    print(f"{packs:,} packs, {tokens:,} tokens, fill {tokens / packs / max_tokens:.2%}")


def fill_table(rows: int) -> None:
    lengths = alpaca_like(rows)
    print(
        "fill = tokens / (packs x room); bound = the same with ceil(tokens / room) packs a step; even = the smallest"
    )
    print(
        "pack of a step over its largest, plainly and dealt evenly; shapes = different pack lengths, plain; with"
    )
    print("lengths rounded up to 128 and the share of padding that this computes")
    print(f"{'batch':>6} {'room':>6} {'packs':>7} {'fill':>7} {'bound':>7} {'plain':>7} {'even':>7} "
          f"{'shapes':>7} {'of 128':>7} {'padding':>8}")  # fmt: skip
    for batch in (8, 32, 128, 512):
        for room in (1024, 2048, 4096, 8192):
            plain = list(packing(lengths, batch, room).sizes())
            even = list(packing(lengths, batch, room, even=True).sizes())
            every = np.array([size for sizes in plain for size in sizes])
            bound = sum(-(-sum(sizes) // room) for sizes in plain)
            rounded = -(-every // 128) * 128
            print(
                f"{batch:6} {room:6,} {len(every) / len(plain):7.2f} {every.sum() / len(every) / room:7.1%} "
                f"{every.sum() / bound / room:7.1%} {np.mean([min(s) / max(s) for s in plain]):7.1%} "
                f"{np.mean([min(s) / max(s) for s in even]):7.1%} {len(np.unique(every)):7,} "
                f"{len(np.unique(rounded)):7,} {rounded.sum() / every.sum() - 1:8.1%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=15_000_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--fill", action="store_true", help="the table of fills, over 20,000 rows")
    given = parser.parse_args()
    if given.fill:
        fill_table(20_000)
    else:
        cost(given.rows, given.batch, given.max_tokens)


if __name__ == "__main__":
    main()
