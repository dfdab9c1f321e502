"""What a checkpoint costs: the step that begins one, and verifying one beside reading it.

    python benchmarks/saving.py [--megabytes 500] [--folder DIR]

A step here is matrix products of about half a second; figures are medians. A save from a copy cannot do without the
copy: `over_step_and_copy` is what the rest of it adds to the step in which it begins.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file
from torch import Tensor

from burnish.checkpoint.background import Writer
from burnish.checkpoint.files import OPTIMIZER, WEIGHTS, Checkpoint, load_checkpoint
from burnish.parallel.runtime import prepare_process

REPEATS = 5


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def checkpoint(megabytes: int) -> Checkpoint:
    third = megabytes * 2**20 // 12
    weights = {f"layer.{k}": torch.randn(third // 20) for k in range(20)}
    moments = {f"{name}/{entry}": torch.randn_like(w) for name, w in weights.items() for entry in ("m", "v")}
    return Checkpoint(1, weights, moments, {})


def parts(read: Checkpoint) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return read.weights, read.optimizer


def forget(files: tuple[Path, ...]) -> None:
    """Have the system drop what it keeps of the files in memory."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def summed(*groups: dict[str, Tensor]) -> None:
    """Look at every number: a file that is mapped is read only then."""
    for group in groups:
        for tensor in group.values():
            tensor.sum()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    prepare_process()
    made = checkpoint(asked.megabytes)
    matrix = torch.randn(1024, 1024)

    def step() -> None:
        product = matrix
        for _ in range(20):
            product = torch.tanh(product @ matrix)

    step()
    made.copied()
    plain = median(seconds(step) for _ in range(REPEATS))
    copies = median(seconds(made.copied) for _ in range(REPEATS))
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        begins, steps, writes = [], [], []
        for number in range(REPEATS):
            writer = Writer(Path(place) / str(number))
            started = time.perf_counter()
            begins.append(
                seconds(lambda w=writer: w.begin(made, copy=True, before=lambda: None, after=lambda: None))
            )
            step()
            steps.append(time.perf_counter() - started)
            writer.wait()
            writes.append(time.perf_counter() - started)
            writer.close()
        directory = Path(place) / "0" / "step-00000001"
        files = (directory / WEIGHTS, directory / OPTIMIZER)
        cold_reads, cold_loads, reads, loads = [], [], [], []
        for _ in range(REPEATS):
            forget(files)
            cold_reads.append(seconds(lambda: summed(*map(load_file, files))))
            reads.append(seconds(lambda: summed(*map(load_file, files))))
            forget(files)
            cold_loads.append(seconds(lambda: summed(*parts(load_checkpoint(directory)))))
            loads.append(seconds(lambda: summed(*parts(load_checkpoint(directory)))))
    print(
        json.dumps(
            {
                "megabytes": asked.megabytes,
                "threads": torch.get_num_threads(),
                "step_s": round(plain, 3),
                "copy_s": round(copies, 3),
                "begin_s": round(median(begins), 3),
                "step_with_save_s": round(median(steps), 3),
                "over_step_and_copy": round(median(steps) / (plain + copies) - 1, 3),
                "write_s": round(median(writes), 3),
                "read_from_disk_s": round(median(cold_reads), 3),
                "verified_load_from_disk_s": round(median(cold_loads), 3),
                "from_disk_load_over_read": round(median(cold_loads) / median(cold_reads), 2),
                "read_from_memory_s": round(median(reads), 3),
                "verified_load_from_memory_s": round(median(loads), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
