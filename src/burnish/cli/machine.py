"""What this machine is: versions, processors, memory, disk, and how fast it multiplies matrices.

{"packages": {"torch": "2.13.0", ...}, "cpu": {"cores": 2, "bfloat16": "avx512_bf16"},
 "devices": [{"name": "cpu", "gflops": {"float32": 95.1, "bfloat16": 210.4}}], ...}
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

CORE = ("torch", "transformers", "peft", "tokenizers", "safetensors", "datasets", "pydantic", "typer")
EXTRAS = ("tensorboard", "wandb", "trackio", "matplotlib", "bitsandbytes", "liger-kernel")
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
GIB = 2**30


def look() -> dict[str, Any]:
    """Everything `burnish doctor` reports, but for its findings; nothing here touches the network."""
    torch = torch_or_none()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version_of(name) for name in ("burnish", *CORE)},
        "extras": {name: version_of(name) for name in EXTRAS},
        "cpu": cpu(torch),
        "devices": devices(torch),
        "memory_gib": memory(),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / GIB, 1),
        "hub": {
            "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE"),
            "token_set": "HF_TOKEN" in os.environ,
            "reachable": "not tried",
        },
    }


def torch_or_none() -> ModuleType | None:
    """PyTorch, or None where it is missing or broken: that is the doctor's to report."""
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError):
        return None


def version_of(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu(torch: ModuleType | None) -> dict[str, Any]:
    """Name, cores this process may use, threads that torch uses, and native bfloat16, if any."""
    facts = _cpuinfo()
    flags = facts.get("flags", facts.get("Features", "")).split()
    native = [flag for flag in BF16_FLAGS if flag in flags]
    return {
        "name": facts.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "bfloat16": native[0] if native else None,
        "kernels": _kernels(torch),
    }


def _kernels(torch: ModuleType | None) -> str | None:
    """Whether burnish's own kernels are used on this processor, or why not."""
    if torch is None:
        return None
    from burnish.kernels.library import why_none  # imports torch, which may be missing

    return why_none() or "compiled"


def memory() -> dict[str, float | None]:
    """Total and available memory of the host, in GiB."""
    path = Path("/proc/meminfo")
    if not path.exists():
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {"total": round(total / GIB, 1), "available": None}
    facts = dict(line.split(":", 1) for line in path.read_text().splitlines())
    kib = {name: int(facts[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
    return {"total": round(kib["MemTotal"] / 2**20, 1), "available": round(kib["MemAvailable"] / 2**20, 1)}


def devices(torch: ModuleType | None) -> list[dict[str, Any]]:
    """The accelerators torch sees, then the CPU, each with its measured matrix speed."""
    if torch is None:
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "memory_gib": round(properties.total_memory / GIB, 1),
                "gflops": speeds(torch, f"cuda:{index}", size=4096),
            }
        )
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU", "gflops": speeds(torch, "mps", size=1024)})
    return [*found, {"device": "cpu", "name": cpu(torch)["name"], "gflops": speeds(torch, "cpu", size=1024)}]


def speeds(torch: ModuleType, device: str, *, size: int) -> dict[str, float]:
    """GFLOP/s of a square matrix product in float32 and bfloat16: the best of five, after one to warm up."""
    result = {}
    for name in ("float32", "bfloat16"):
        left = torch.ones(size, size, device=device, dtype=getattr(torch, name))
        best = min(_seconds(torch, left, device) for _ in range(6))
        result[name] = round(2 * size**3 / best / 1e9, 1)
    return result


def _seconds(torch: ModuleType, matrix: Any, device: str) -> float:
    start = time.perf_counter()
    # reading one number back waits for an asynchronous device
    float((matrix @ matrix)[0, 0])
    return time.perf_counter() - start


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    first = path.read_text().split("\n\n")[0] if path.exists() else ""
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
