"""AdamW with its moments in 8 bits, or paged out to the host when a GPU is full: bitsandbytes' optimisers.

    adamw_8bit           each moment 1 byte a parameter, with one fp32 scale for 256 of them; small tensors in fp32
    paged_adamw_32bit    fp32 moments in memory that the driver may move to the host; on a CPU plain fp32
    paged_adamw_8bit     both

Their state is like torch's but for two things: the step is a Python number, and each parameter holds the same two
code tables, which are no state and are not saved.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from burnish.errors import UsageError

NAMES = ("adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")
_TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}


def build_8bit(groups: list[dict[str, Any]], name: str) -> torch.optim.Optimizer:
    """One of `NAMES` over parameter groups, with torch's AdamW's own betas and epsilon."""
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise UsageError(
            f"optimizer: {name}, and bitsandbytes is not installed",
            rule="8-bit and paged optimisers are those of bitsandbytes",
            remedy="pip install 'burnish[qlora]', or say optimizer=adamw",
        ) from error
    kind = optim.AdamW8bit if name.endswith("8bit") else optim.AdamW32bit
    made: torch.optim.Optimizer = kind(
        groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, is_paged=name.startswith("paged")
    )
    # On a CPU there is nothing to page; the documentation of the key says so, once and for all.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    return made


def is_8bit(part: torch.optim.Optimizer) -> bool:
    """Whether an optimiser is one of bitsandbytes'."""
    return type(part).__module__.startswith("bitsandbytes.")


def saved_entries(part: torch.optim.Optimizer, entries: dict[str, Any]) -> dict[str, Any]:
    """What of a parameter's state is state."""
    return {key: value for key, value in entries.items() if key not in _TABLES} if is_8bit(part) else entries


def restored_entries(part: Any, entries: dict[str, Tensor], device: torch.device) -> dict[str, Any]:
    """A saved state as the optimiser keeps it: the step a number, the code tables beside 8-bit moments."""
    if not is_8bit(part) or not entries:
        return dict(entries)
    whole: dict[str, Any] = {**entries, "step": int(entries["step"])}
    if entries["state1"].dtype == torch.uint8:
        for key, table in _TABLES.items():
            part.name2qmap[table] = part.name2qmap[table].to(device)
            whole[key] = part.name2qmap[table]
    return whole
