"""What a model thinks of single tokens: the probability of each target, and how many tokens it puts before it.

target      " Paris"    "."     "<|im_end|>"
p            .41        .88      .0001
rank          1          1       2310           1 is the first choice
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from burnish.data.pack import Pack
from burnish.models.forward import Forward

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Of each target of a pack `(G,)`, in the pack's order: its probability, and its rank from 1."""

    p: Floats
    rank: Ints


def rank_targets(forward: Forward, pack: Pack) -> Ranked:
    """Ask for each target; within `pack_attention`, without gradient, a chunk of logits at a time."""
    p = np.zeros(len(pack.targets), dtype=np.float64)
    rank = np.zeros(len(pack.targets), dtype=np.int64)
    for first, block in forward.blocks(pack):
        mine = np.nonzero((pack.row_of >= first) & (pack.row_of < first + len(block)))[0]
        logits = block.float()
        rows = torch.from_numpy(pack.row_of[mine] - first).to(logits.device)
        targets = torch.from_numpy(pack.targets[mine]).to(logits.device)
        chosen = logits[rows, targets]
        p[mine] = torch.exp(chosen - logits.logsumexp(-1)[rows]).cpu().numpy()
        rank[mine] = 1 + (logits[rows] > chosen[:, None]).sum(-1).cpu().numpy()
    return Ranked(p, rank)
