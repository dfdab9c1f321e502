"""Documents that begin alike, and a pack of them in which each beginning is laid once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from burnish.data.pack import Pack, build_pack
from burnish.types import Example


def examples(seed: int = 0, *, vocabulary: int = 60) -> list[Example]:
    """Six documents, three of which begin alike and two more of which go on alike; about half is graded."""
    draw = np.random.default_rng(seed)
    prefix, more = draw.integers(3, vocabulary, 6).tolist(), draw.integers(3, vocabulary, 3).tolist()
    ids = [
        [*prefix, *draw.integers(3, vocabulary, 4).tolist()],
        [*prefix, *more, *draw.integers(3, vocabulary, 2).tolist()],
        [*prefix, *more, *draw.integers(3, vocabulary, 5).tolist()],
        draw.integers(3, vocabulary, 12).tolist(),
        draw.integers(3, vocabulary, 2).tolist(),
        [*prefix, *more],
    ]
    made = []
    for row, tokens in enumerate(ids):
        weights = draw.choice([0.0, 1.0, 0.5], len(tokens) - 1).tolist()
        made.append(Example(row, row % 2, (1,), tokens, [0.0, *weights[:-1], 1.0]))
    return made


def share(rows: Sequence[Example]) -> Pack:
    """One pack in which every common prefix is laid once."""
    return build_pack(rows, share_prefixes=True, min_shared=1)
