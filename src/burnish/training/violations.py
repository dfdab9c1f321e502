"""Rules that hold for ids and weights alone, checked on what is stored and on what is packed.

They know neither template nor encoder: whoever made the tokens, a defect planted behind them is seen.
`chat.certificate` has the rules that need the row itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

import numpy as np

from burnish.data.pack import FloatArray, IntArray, Pack
from burnish.data.store import EncodedRows
from burnish.types import Example

_VIEWS = 4096  # looked at together


def broken_rules(
    rows: EncodedRows, *, stop_ids: Collection[int], bos_id: int | None
) -> Iterator[tuple[str, int]]:
    """Each rule that a sequence breaks, with the number of the sequence's row."""
    stops = np.array(sorted(stop_ids), dtype=np.int32)
    for first in range(0, rows.num_views, _VIEWS):
        part = range(first, min(first + _VIEWS, rows.num_views))
        for code, broken in _broken(rows, part, stops, None if bos_id in stop_ids else bos_id):
            for view in np.flatnonzero(broken):
                yield code, int(rows.columns["view_rows"][first + int(view)])


def _broken(
    rows: EncodedRows, part: range, stops: np.ndarray[tuple[int], np.dtype[np.int32]], bos_id: int | None
) -> Iterator[tuple[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]]:
    columns, here = rows.columns, slice(part.start, part.stop)
    ends, run_ends, turn_ends = (columns[name][here] for name in ("view_ends", "run_ends", "turn_ends"))
    before = {name: int(columns[name][part.start - 1]) if part.start else 0 for name in _ENDS}
    lengths = np.diff(ends, prepend=before["view_ends"])
    turns = np.diff(turn_ends, prepend=before["turn_ends"])
    ids = columns["ids"][before["view_ends"] : ends[-1]]
    runs = slice(before["run_ends"], int(run_ends[-1]))
    weights = np.repeat(columns["run_weights"][runs], columns["run_lengths"][runs])
    starts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(part)), lengths)
    graded = weights != 0.0
    graded_stops = np.bincount(owner[graded & np.isin(ids, stops)], minlength=len(part))
    # A turn that was cut is not taught to stop; of a long text no window but the last ends with a stop.
    whole = (columns["view_cuts"][here] == 0) & (turns > 0)
    yield "nothing graded", np.bincount(owner[graded], minlength=len(part)) == 0
    yield "first token graded", graded[starts]
    yield "turn without its stop token", whole & (graded_stops < turns)
    yield "stop token inside a turn", whole & (graded_stops > turns)
    if bos_id is not None:
        second = np.minimum(starts + 1, len(ids) - 1)
        yield "two BOS", (lengths > 1) & (ids[starts] == bos_id) & (ids[second] == bos_id)


_ENDS = ("view_ends", "run_ends", "turn_ends")


def pack_violations(pack: Pack, examples: Sequence[Example]) -> list[str]:
    """The rules that a pack of these examples, in this order, breaks; each once.

    Each example is walked to where its tokens lie, through the prefixes that it shares: what is read there, and what
    is graded there, is compared with the example itself.
    """
    numbers = {len(pack.row_of), len(pack.targets), len(pack.weights), len(pack.sources)}
    if list(pack.rows) != [example.row for example in examples] or len(pack.leaves) != len(examples):
        return ["documents laid out otherwise"]
    if len(numbers) > 1:
        return ["targets, weights and sources differ in number"]
    ids = np.array(list(chain.from_iterable(example.input_ids for example in examples)), dtype=np.int64)
    weights = np.array(list(chain.from_iterable(example.weights for example in examples)), dtype=np.float32)
    lengths = np.array([len(example) for example in examples], dtype=np.int64)
    where = np.concatenate([pack.tokens_of(number) for number in range(len(examples))])
    if len(where) != len(ids) or _num_places(where, len(pack)) + pack.padding != len(pack):
        return ["documents laid out otherwise"]
    found: list[str] = []
    if not np.array_equal(pack.input_ids[where], ids):
        found.append("tokens changed in the pack")
    if not np.array_equal(pack.position_ids[where], np.concatenate([np.arange(n) for n in lengths])):
        found.append("positions not consecutive")
    ends = np.repeat(where[np.cumsum(lengths) - 1], lengths)
    if (pack.reach[where] <= ends).any() or not np.array_equal(_seen(pack), pack.position_ids + 1):
        found.append("documents see each other")
    return [*found, *_graded_otherwise(pack, examples, ids, weights, where, lengths)]


def _num_places(where: IntArray, size: int) -> int:
    """How many different places there are, all of them within `size`; -1 where one is not."""
    if len(where) and not 0 <= where.min() <= where.max() < size:
        return -1
    taken = np.zeros(size, bool)
    taken[where] = True
    return int(np.count_nonzero(taken))


def _seen(pack: Pack) -> IntArray:
    """How many tokens each token sees: those up to it, but for the ones whose reach has ended."""
    over = np.cumsum(np.bincount(np.clip(pack.reach, 0, len(pack)), minlength=len(pack) + 1))[: len(pack)]
    return np.arange(1, len(pack) + 1) - over


def _graded_otherwise(
    pack: Pack,
    examples: Sequence[Example],
    ids: IntArray,
    weights: FloatArray,
    where: IntArray,
    lengths: IntArray,
) -> Iterator[str]:
    """Targets are the tokens with a weight, each predicted from the one before it in its own example."""
    graded = np.flatnonzero(weights)
    if len(graded) != len(pack.targets) or not np.array_equal(pack.weights, weights[graded]):
        yield "weights changed in the pack"
        return
    inside = (pack.rows_kept >= 0) & (pack.rows_kept < len(pack))
    if not (inside.all() and np.array_equal(pack.predicts, where[graded - 1])) or not np.array_equal(
        pack.targets, ids[graded]
    ):
        yield "target is not the next token"
    owner = np.repeat(np.arange(len(examples)), lengths)[graded]
    if not np.array_equal(pack.sources, np.array([example.source for example in examples])[owner]):
        yield "source changed in the pack"
