"""Ranks for tests: processes from a server that never computed, which find each other through a file."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = timedelta(seconds=60)


def on_ranks(size: int, job: Callable[..., Any], *given: Any) -> list[Any]:
    """What `job(*given)` returns on each of `size` gloo ranks; AssertionError with what a rank said if one fails."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, job.__module__])
    with tempfile.TemporaryDirectory() as folder:
        answers: Any = processes.SimpleQueue()
        ranks = [
            processes.Process(target=_rank, args=(rank, size, folder, answers, job, given), daemon=True)
            for rank in range(size)
        ]
        for rank in ranks:
            rank.start()
        found = dict(answers.get() for _ in ranks)
        for rank in ranks:
            rank.join()
    failed = {rank: said for rank, said in found.items() if isinstance(said, Exception)}
    assert not failed, failed
    return [found[rank] for rank in range(size)]


def _rank(rank: int, size: int, folder: str, answers: Any, job: Callable[..., Any], given: Any) -> None:
    torch.set_num_threads(1)
    try:
        store = dist.FileStore(str(Path(folder) / "store"), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
        answers.put((rank, job(*given)))
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:  # whatever it is, the test is told
        answers.put((rank, RuntimeError(f"{type(error).__name__}: {error}")))
