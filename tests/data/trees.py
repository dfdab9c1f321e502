"""Examples that begin alike in every way that data does, and the slow truth about a pack of them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from burnish.data.pack import Pack
from burnish.types import Example

WEIGHTS = st.sampled_from([0.0, 0.0, 1.0, 0.25, -0.5])


@st.composite
def families(draw: st.DrawFn, most: int = 14) -> list[Example]:
    """Examples over three tokens, many grown from earlier ones: equal ones, single tokens, one within another."""
    grown: list[list[int]] = []
    for _ in range(draw(st.integers(1, most))):
        more = draw(st.lists(st.integers(0, 2), max_size=6))
        base = draw(st.sampled_from(grown)) if grown and draw(st.booleans()) else []
        grown.append((base[: draw(st.integers(0, len(base)))] + more) or [draw(st.integers(0, 2))])
    return [
        Example(
            row=row // 2,
            source=row % 3,
            turns=(1,),
            input_ids=ids,
            weights=[0.0, *(draw(WEIGHTS) for _ in ids[1:])],
        )
        for row, ids in enumerate(grown)
    ]


def distinct_prefixes(examples: list[Example]) -> int:
    """How many different token sequences begin an example: what a forward pass cannot do without."""
    return len({tuple(e.input_ids[: k + 1]) for e in examples for k in range(len(e))})


def check_pack(pack: Pack, examples: list[Example]) -> None:
    """Assert that a pack is exactly these examples: ids, positions, what each token sees, what is graded."""
    assert pack.rows == tuple(e.row for e in examples)
    assert pack.tokens == sum(map(len, examples))
    visible = np.tril(np.ones((len(pack), len(pack)), dtype=bool))
    visible &= np.arange(len(pack))[:, None] < pack.reach[None, :]
    covered = np.zeros(len(pack), dtype=bool)
    graded: list[tuple[int, int, float, int]] = []
    for index, example in enumerate(examples):
        where = pack.tokens_of(index)
        covered[where] = True
        assert pack.input_ids[where].tolist() == list(example.input_ids)
        assert pack.position_ids[where].tolist() == list(range(len(example)))
        for length, query in enumerate(where, start=1):
            assert np.flatnonzero(visible[query]).tolist() == where[:length].tolist()
        graded += [
            (int(where[k - 1]), example.input_ids[k], example.weights[k], example.source)
            for k in range(len(example))
            if example.weights[k]
        ]
    told = zip(
        pack.predicts.tolist(),
        pack.targets.tolist(),
        pack.weights.tolist(),
        pack.sources.tolist(),
        strict=True,
    )
    assert list(told) == graded
    assert pack.rows_kept.tolist() == sorted({at for at, *_ in graded})
    assert covered.sum() == len(pack) - pack.padding
    assert pack.saved_tokens == pack.tokens - covered.sum()
