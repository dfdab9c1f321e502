"""The process made ready before torch is imported: the allocator, denormals, threads.

Two silent costs on a CPU. glibc gives every large block back to the kernel and faults its pages in again a
moment later (a third of a peer's time there). And the moments of rarely seen rows decay into denormal
floats, on which arithmetic is many times slower (a pre-training run fell to a sixth of its speed).
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGE = 1 << 20
COMPILED_SHAPES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "4"}
"""How many shapes of products oneDNN remembers, and torch's layer above it: 0.4 MB apiece.

Who forgets one makes it again, in a millisecond; but what torch forgot, oneDNN still knows.
"""


@contextmanager
def importing() -> Iterator[None]:
    """Import what lives as long as the process, without looking for garbage in it.

    torch and transformers make a million objects that stay: looking through them at every collection takes a fifth
    of the time that importing takes, and of each collection afterwards.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for the next allocation; true if it agreed.

    To have an effect it must come before the first large allocation. `BURNISH_ALLOCATOR=system` leaves all as it is.
    """
    if os.environ.get("BURNISH_ALLOCATOR") == "system" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    limit = 2**31 - 1
    return bool(libc.mallopt(M_MMAP_THRESHOLD, limit) and libc.mallopt(M_TRIM_THRESHOLD, limit))


def give_back_large_blocks() -> None:
    """From here on large blocks go back to the system as they are freed, whichever thread had them.

    For ranks of a CPU that gather weights: gloo's threads each have a heap of their own, in which what one layer left
    is not found by the next, and a rank would come to hold several times the model of which it has a part.
    """
    if os.environ.get("BURNISH_ALLOCATOR") != "system" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, LARGE)
        libc.malloc_trim(0)


def give_back_freed_memory() -> None:
    """Return freed blocks to the system: where much was held for a moment, as when a model is quantised."""
    if os.environ.get("BURNISH_ALLOCATOR") != "system" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def prepare_process() -> dict[str, bool | int | str]:
    """Set the process up for training, once; returns what was set, for the log.

    `BURNISH_DENORMALS=keep` leaves denormal floats as they are, `BURNISH_KERNELS=off` leaves the CPU kernels out.
    """
    kept = keep_freed_memory()
    for store, shapes in COMPILED_SHAPES.items():
        os.environ.setdefault(store, shapes)
    import torch  # after the allocator is set, which is the point of this function

    from burnish.kernels.library import why_none

    flush = os.environ.get("BURNISH_DENORMALS") != "keep"
    if flush:
        flush = torch.set_flush_denormal(True)
    return {
        "keeps_freed_memory": kept,
        "flushes_denormals": flush,
        "threads": torch.get_num_threads(),
        "kernels": why_none() or "bf16, compiled here",
    }


def device_memory() -> int:
    """The memory of this machine's device in bytes: torch's first GPU, else the host's or this container's share."""
    import torch  # as above

    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return host_memory()


def host_memory() -> int:
    """The memory of the host in bytes, or this container's share of it."""
    limit = Path("/sys/fs/cgroup/memory.max")
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if limit.exists() and (said := limit.read_text().strip()).isdigit():
        return min(host, int(said))
    return host


def processors() -> float:
    """How many processors this process may use: those it is bound to, or its container's share of them."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, period = limit.read_text().split() if limit.exists() else ("max", "100000")
    return bound if quota == "max" else min(bound, int(quota) / int(period))


def computes_on_every_core(device: str, *, processes: int = 1) -> bool:
    """Whether training on `device` has a thread for every processor, so that whatever else computes holds it up."""
    import torch  # as above

    return device == "cpu" and processes * torch.get_num_threads() >= processors()


def resident_bytes() -> int:
    """The resident size of this process now; its peak so far where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_memory_bytes()


def peak_memory_bytes() -> int:
    """The largest resident size this process has had (on CUDA: the largest that torch has held there)."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource  # not on every platform, and only this figure needs it

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
