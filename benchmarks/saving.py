"""What a checkpoint costs: the step that begins one and those that follow, and verifying one beside reading it.

    python benchmarks/saving.py [--megabytes 500] [--every 60] [--saves 5] [--unpaced] [--folder DIR]

A step here is matrix products of about a quarter of a second; a save begins after every so many. Figures are medians,
and the largest of all saves too. A save from a copy cannot do without the copy: `over_step_and_copy` is what the rest
of it adds to the step in which it begins, `over_step_while_written` to the others until it is done.
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
from burnish.checkpoint.files import OPTIMIZER, WEIGHTS, Checkpoint, load_checkpoint, write_checkpoint
from burnish.parallel.runtime import computes_on_every_core, prepare_process

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


def saves(
    made: Checkpoint, step: Callable[[], None], folder: Path, *, count: int, every: int, paced: bool
) -> dict[str, list[float]]:
    """Steps as a run takes them, with a save after every so many: seconds of each kind."""
    took: dict[str, list[float]] = {kind: [] for kind in ("plain", "begin", "first", "written", "save")}
    writer = Writer(folder, paced=paced)
    writer.begin(
        made, copy=True, before=lambda: None, after=lambda: None
    )  # its thread, and memory for a copy
    writer.wait()
    took["plain"] += [seconds(step) for _ in range(every)]
    for number in range(count):
        one = Checkpoint(number + 2, made.weights, made.optimizer, {})
        started, is_written = time.perf_counter(), False
        writer.begin(one, copy=True, before=lambda: None, after=lambda: None)
        took["begin"].append(time.perf_counter() - started)
        step()
        took["first"].append(time.perf_counter() - started)
        for _ in range(every - 1):
            if not is_written and writer.done() is not None:
                is_written = True
                took["save"].append(time.perf_counter() - started)
            took["plain" if is_written else "written"].append(seconds(step))
        if not is_written:
            writer.wait()
            took["save"].append(time.perf_counter() - started)
    writer.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--every", type=int, default=60)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--unpaced", action="store_true", help="as where a core is free")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    prepare_process()
    made = checkpoint(asked.megabytes)
    matrix = torch.randn(1024, 1024)

    def step() -> None:
        product = matrix
        for _ in range(20):
            product = torch.tanh(product @ matrix)

    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        loading = loads(write_checkpoint(Path(place), made))  # first, as a process that resumes does it
    step()
    made.copied()
    copy = median(seconds(made.copied) for _ in range(REPEATS))
    paced = computes_on_every_core("cpu") and not asked.unpaced
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        took = saves(made, step, Path(place), count=asked.saves, every=asked.every, paced=paced)
    plain = median(took["plain"])
    over = [first / (plain + copy) - 1 for first in took["first"]]
    after = [one / plain - 1 for one in took["written"]]
    figures = {
        "megabytes": asked.megabytes,
        "threads": torch.get_num_threads(),
        "paced": paced,
        "saves": asked.saves,
        "step_s": plain,
        "copy_s": copy,
        "begin_s": median(took["begin"]),
        "step_with_save_s": median(took["first"]),
        "over_step_and_copy": median(over),
        "over_step_and_copy_most": max(over),
        "over_step_while_written": median(after) if after else 0.0,
        "steps_while_written": len(after) / asked.saves,
        "save_s": median(took["save"]),
        **loading,
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def loads(directory: Path) -> dict[str, float]:
    """Seconds of reading a checkpoint's two large files, and of a load that verifies them."""
    files = (directory / WEIGHTS, directory / OPTIMIZER)
    cold_reads, cold_loads, reads, verified = [], [], [], []
    for _ in range(REPEATS):
        forget(files)
        cold_reads.append(seconds(lambda: summed(*map(load_file, files))))
        reads.append(seconds(lambda: summed(*map(load_file, files))))
        forget(files)
        cold_loads.append(seconds(lambda: summed(*parts(load_checkpoint(directory)))))
        verified.append(seconds(lambda: summed(*parts(load_checkpoint(directory)))))
    return {
        "read_from_disk_s": median(cold_reads),
        "verified_load_from_disk_s": median(cold_loads),
        "from_disk_load_over_read": median(cold_loads) / median(cold_reads),
        "read_from_memory_s": median(reads),
        "verified_load_from_memory_s": median(verified),
    }


if __name__ == "__main__":
    main()
