"""Packs with shared prefixes, built the slow and plain way: a trie of token ids, laid out depth first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from burnish.data.pack import Pack, Segment
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
    ids: list[int] = []
    positions: list[int] = []
    reach: list[int] = []
    segments: list[Segment] = []
    graded: list[tuple[int, int, float, int]] = []  # position that predicts, target, weight, source

    def lay(group: list[Example], depth: int, parent: int, last: int) -> None:
        """Lay what the rows of a group have in common from `depth` on, then each continuation after it."""
        first, start = group[0].input_ids, len(ids)
        common = depth
        while all(len(e) > common and e.input_ids[common] == first[common] for e in group):
            common += 1
        before = last
        for k in range(depth, common):
            for e in group:
                if e.weights[k]:
                    graded.append((before, first[k], e.weights[k], e.source))
            before = len(ids)
            ids.append(first[k])
            positions.append(k)
        mine = parent
        if common > depth:
            segments.append(Segment(start, len(ids), parent))
            mine = len(segments) - 1
        reach.extend([0] * (common - depth))
        children: dict[int, list[Example]] = {}
        for e in group:
            if len(e) > common:
                children.setdefault(e.input_ids[common], []).append(e)
        for child in children.values():
            lay(child, common, mine, before)
        reach[start : start + common - depth] = [len(ids)] * (common - depth)

    roots: dict[int, list[Example]] = {}
    for e in rows:
        roots.setdefault(e.input_ids[0], []).append(e)
    for group in roots.values():
        lay(group, 0, -1, -1)
    kept = sorted({at for at, *_ in graded})
    place = {at: number for number, at in enumerate(kept)}
    return Pack(
        input_ids=np.array(ids),
        position_ids=np.array(positions),
        reach=np.array(reach),
        segments=tuple(segments),
        rows_kept=np.array(kept),
        row_of=np.array([place[at] for at, *_ in graded]),
        targets=np.array([target for _, target, *_ in graded]),
        weights=np.array([weight for *_, weight, _ in graded], dtype=np.float32),
        sources=np.array([source for *_, source in graded]),
        rows=tuple(e.row for e in rows),
    )
