"""`burnish doctor`: what this machine is, and what to mind when training on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from burnish.cli.machine import CORE, look
from burnish.cli.output import Output

LITTLE_MEMORY_GIB = 4
LITTLE_DISK_GIB = 5


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Look at this machine: versions, devices, speed, memory, and what to mind."""
    output = Output(as_json=as_json)
    facts = look()
    facts["findings"] = list(findings(facts))
    output.emit(facts)
    if not as_json:
        output.table(("", ""), _rows(facts))
        output.say()
        for finding in facts["findings"]:
            output.say(f"- {finding}")


def findings(facts: dict[str, Any]) -> Iterator[str]:
    """What to mind, in plain words; one line that all is well where nothing is."""
    missing = [name for name in CORE if facts["packages"][name] is None]
    if missing:
        yield f"{', '.join(missing)} not installed: pip install {' '.join(missing)}"
    elif not facts["devices"]:
        yield 'torch is installed but cannot be imported: see python -c "import torch"'
    else:
        yield from _device_findings(facts)
    available = facts["memory_gib"]["available"]
    if available is not None and available < LITTLE_MEMORY_GIB:
        yield f"{available} GiB of memory free: keep to models below about 200M parameters, or adapter: lora"
    if facts["disk_free_gib"] < LITTLE_DISK_GIB:
        yield f"{facts['disk_free_gib']} GiB of disk free here: a checkpoint is up to three times the weights"
    if facts["hub"]["HF_HUB_OFFLINE"]:
        yield "HF_HUB_OFFLINE is set: only models and datasets that are on this machine can be used"


def _device_findings(facts: dict[str, Any]) -> Iterator[str]:
    best = facts["devices"][0]
    speed = best["gflops"]
    faster = "bfloat16" if speed["bfloat16"] > speed["float32"] else "float32"
    yield f"training runs on {best['device']}; {faster} is the faster precision on it: dtype: {faster}"
    if best["device"] == "cpu":
        yield "no GPU: the embedded model and small ones train well here, billions of parameters do not"
        threads, cores = facts["cpu"]["threads"], facts["cpu"]["cores"]
        if threads and cores and threads < cores:
            yield f"torch uses {threads} of {cores} cores: OMP_NUM_THREADS={cores} uses all of them"


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "python", f"{facts['python']}  {facts['platform']}"
    for name, version in facts["packages"].items():
        yield name, version or "not installed"
    cpu = facts["cpu"]
    yield "processor", f"{cpu['name']}, {cpu['cores']} cores, {cpu['threads']} threads"
    yield "native bfloat16", cpu["bfloat16"] or "none on the CPU"
    yield "bfloat16 kernels", cpu["kernels"] or "not known"
    for device in facts["devices"]:
        speed = ", ".join(f"{name} {value:,.0f} GFLOP/s" for name, value in device["gflops"].items())
        memory = f", {device['memory_gib']} GiB" if "memory_gib" in device else ""
        yield device["device"], f"{device['name']}{memory}, {speed}"
    yield "memory", f"{facts['memory_gib']['available']} GiB free of {facts['memory_gib']['total']} GiB"
    yield "disk", f"{facts['disk_free_gib']} GiB free here"
    present = [f"{name} {version}" for name, version in facts["extras"].items() if version]
    yield "optional", ", ".join(present) or "none installed"
    yield "hub", f"not tried; HF_HUB_OFFLINE={facts['hub']['HF_HUB_OFFLINE'] or 'not set'}"
