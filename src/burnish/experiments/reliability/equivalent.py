"""Mutants that compute what the module computes, each with the reason: no test could tell them apart."""

from __future__ import annotations

_ZIP = "both sides come from one list and are equally long; strict only says so aloud"
_WAY = "a GPU's way, taken on a CPU: the same numbers, made in other memory"
_ONE = "a multiplication by one, made or left out"
_BOTH = (
    "where the probability is just so small, both ways of taking its logarithm are good to the last digits"
)
_PART = "how much is done at a time, not what is done"
EQUIVALENT: dict[str, dict[str, str]] = {
    "burnish.data.pack": {
        "_lay: True -> False": _ZIP,
        "_graded: True -> False": _ZIP,
    },
    "burnish.losses.cross_entropy": {
        "module: 256 -> 257": _PART,
        "module: 2048 -> 2049": _PART,
        "module: 2 -> 3": _PART,
        "module: 20 -> 21": _PART,
        "grade_logits: if logits.device.type != 'cpu': -> if not logits.device.type != 'cpu':": _WAY,
        "grade_logits: logits.device.type != 'cpu' -> logits.device.type == 'cpu'": _WAY,
        "_grade_block: None if z.device.type == 'cpu' else torch.logsumexp(z, -1)[rows] - at_target -> "
        "None if not z.device.type == 'cpu' else torch.logsumexp(z, -1)[rows] - at_target": _WAY,
        "_grade_block: z.device.type == 'cpu' -> z.device.type != 'cpu'": _WAY,
        "_grade_block: p.device.type != 'cpu' -> p.device.type == 'cpu'": _ONE,
        "_HeadLoss.backward: by.device.type != 'cpu' -> by.device.type == 'cpu'": _ONE,
        "_HeadLoss.forward: 4 -> 5": "the fifth argument is of integers, which never need a gradient",
        "grade_logits: BLOCK_LOGITS // logits.shape[1] -> BLOCK_LOGITS * logits.shape[1]": _PART,
        "grade_logits: 1 -> 2": _PART,
        "_grade_plainly: float(shares[rows].min()) <= TINY -> float(shares[rows].min()) < TINY": _BOTH,
        "_surprise: shares <= TINY -> shares < TINY": _BOTH,
    },
    "burnish.checkpoint.files": {
        "load_checkpoint: 3 -> 4": _PART,
    },
    "burnish.checkpoint.tensors": {
        "module: 1 -> 2": _PART,
        "module: 22 -> 23": _PART,
        "read_hashed: 0 -> 1": "buffering=1: the same bytes come through a buffer",
    },
    "burnish.training.step": {
        "take_step: True -> False": _ZIP,
        "_of_all_ranks: True -> False": _ZIP,
        "SourceSums.gather: True -> False": _ZIP,
    },
}
"""Module, then `function: before -> after` as `mutants` says it, then why."""
