"""Packs: documents laid end to end in one row, no padding, and the list of what is graded.

Two examples of 4 and 3 tokens, the answers `c d` and `y` graded:

    input_ids     a b c d | x y z
    position_ids  0 1 2 3 | 0 1 2          positions restart with each document
    reach         4 4 4 4 | 7 7 7          query q sees key k where k <= q < reach[k]
    rows_kept     1 2 4                    positions whose logits are needed: b -> c, c -> d, x -> y
    row_of        0 1 2                    which of them predicts each target
    targets       c d y                    this is the only place where burnish shifts by one
    weights       1 1 1

With `share_prefixes`, what examples begin with alike is laid once and their continuations after it, depth first:
two answers `c d` and `y` to the prompt `a b`.

    input_ids     a b | c d | y            three segments; the last two continue the first
    position_ids  0 1 | 2 3 | 2
    reach         5 5 | 4 4 | 5            the prompt reaches past both answers, each answer to its own end
    rows_kept     1 2                      b, where the answers part, and c
    row_of        0 1 0                    b is graded against c and against y
    targets       c d y
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from burnish.data.fill import deal, evenly
from burnish.data.trie import MINIMUM, Trie, apart, find_prefixes
from burnish.types import Example

IntArray = np.ndarray[tuple[int], np.dtype[np.int64]]
FloatArray = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Segment:
    """The tokens `[start, end)` of a pack, which continue those of segment `parent` (-1: they begin a document)."""

    start: int
    end: int
    parent: int


@dataclass(frozen=True, slots=True)
class Pack:
    """One micro-batch: T tokens, R of them predicting G targets.

    `input_ids`, `position_ids`, `reach` are `(T,)`; `rows_kept` is `(R,)`, ascending; `row_of`, `targets`,
    `weights`, `sources` are `(G,)`, example by example: logits at `rows_kept[row_of[g]]` are graded against
    `targets[g]` with `weights[g]`. `rows` are the data rows inside and `leaves` the segments in which they end,
    one per example, in the order given. `segments` are in layout order; the last `padding` tokens, a segment of
    their own, belong to no example.
    """

    input_ids: IntArray
    position_ids: IntArray
    reach: IntArray
    segments: tuple[Segment, ...]
    rows_kept: IntArray
    row_of: IntArray
    targets: IntArray
    weights: FloatArray
    sources: IntArray
    rows: tuple[int, ...]
    leaves: tuple[int, ...]
    padding: int = 0

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def predicts(self) -> IntArray:
        """For each target, the position whose logits are graded against it."""
        return self.rows_kept[self.row_of]

    @property
    def is_tree(self) -> bool:
        """Whether a segment continues another."""
        return any(segment.parent >= 0 for segment in self.segments)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Each document's tokens, for models that need them one by one; ValueError in a tree, which has none."""
        if self.is_tree:
            raise ValueError("a pack with shared prefixes has no document that stands alone")
        return tuple((segment.start, segment.end) for segment in self.segments)

    @property
    def weight(self) -> float:
        """The pack's share of the loss's denominator."""
        return float(self.weights.sum(dtype=np.float64))

    @property
    def tokens(self) -> int:
        """The tokens of the pack's examples, each counted in full."""
        last = np.array([self.segments[leaf].end - 1 for leaf in self.leaves])
        return int((self.position_ids[last] + 1).sum())

    @property
    def saved_tokens(self) -> int:
        """Tokens that need not be computed because another example begins with them."""
        return self.tokens + self.padding - len(self)

    def tokens_of(self, example: int) -> IntArray:
        """Where the tokens of one of the pack's examples lie, first to last."""
        parts, segment = [], self.leaves[example]
        while segment >= 0:
            part = self.segments[segment]
            parts.append(np.arange(part.start, part.end))
            segment = part.parent
        return np.concatenate(parts[::-1])


@dataclass(frozen=True, slots=True)
class _Run:
    """A segment before it has its place: tokens `[first, end)` of an example."""

    example: int
    first: int
    end: int
    parent: int


def build_pack(
    examples: Sequence[Example], *, share_prefixes: bool = False, min_shared: int = MINIMUM, round_to: int = 1
) -> Pack:
    """Lay examples end to end, common beginnings of `min_shared` tokens or more once, and list what is graded.

    `round_to` adds an ungraded document of zeros up to a multiple of so many tokens, so that lengths repeat.
    """
    ids = [np.asarray(example.input_ids, dtype=np.int64) for example in examples]
    trie = find_prefixes(ids, minimum=min_shared) if share_prefixes else apart([len(part) for part in ids])
    return _lay(examples, ids, trie, list(range(len(examples))), round_to)


def pack_all(
    examples: Sequence[Example],
    *,
    max_tokens: int,
    max_rows: int | None = None,
    share_prefixes: bool = False,
    min_shared: int = MINIMUM,
    round_to: int = 1,
    even: bool = False,
) -> list[Pack]:
    """Deal examples to packs of at most `max_tokens` laid tokens, each example whole and once.

    Best fit, longest first; with `share_prefixes` what begins alike goes together. An example longer than
    `max_tokens` gets a pack of its own. `max_rows` bounds the examples of a pack. With `even` there are as many
    packs, of about one size. With `round_to` (see `build_pack`) `max_tokens` should be a multiple of it.
    """
    ids = [np.asarray(example.input_ids, dtype=np.int64) for example in examples]
    lengths = [len(part) for part in ids]
    if share_prefixes:
        trie = find_prefixes(ids, minimum=min_shared)
        within = partial(trie.deal, max_rows=max_rows)
        dealt = evenly(within, total=trie.size, most=max_tokens) if even else within(max_tokens)
    else:
        trie = apart(lengths)
        dealt = deal(lengths, max_tokens=max_tokens, max_rows=max_rows, even=even)
    return [_lay(examples, ids, trie, members, round_to) for members in dealt]


def total_weight(packs: Iterable[Pack]) -> float:
    """The one denominator of a global batch: the weights of all its graded tokens."""
    return float(sum(pack.weight for pack in packs))


def _lay(
    examples: Sequence[Example], ids: Sequence[IntArray], trie: Trie, members: Sequence[int], round_to: int
) -> Pack:
    """A pack of some of a trie's sequences."""
    runs, leaves = _runs(trie, members)
    lengths = np.array([run.end - run.first for run in runs])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    size = int(ends[-1])
    padding = -size % round_to
    segments = [Segment(int(s), int(e), r.parent) for s, e, r in zip(starts, ends, runs, strict=True)]
    reach = np.repeat(_subtree_ends(segments), lengths)
    position_ids = np.arange(size) - np.repeat(starts - [run.first for run in runs], lengths)
    input_ids = np.concatenate([ids[run.example][run.first : run.end] for run in runs])
    owner, predicts, targets, weights = _graded(examples, ids, members, segments, position_ids, leaves)
    rows_kept, row_of = _numbered(predicts, size)
    if padding:
        segments.append(Segment(size, size + padding, -1))
        input_ids = np.pad(input_ids, (0, padding))
        position_ids = np.concatenate([position_ids, np.arange(padding)])
        reach = np.pad(reach, (0, padding), constant_values=size + padding)
    return Pack(
        input_ids=input_ids,
        position_ids=position_ids,
        reach=reach,
        segments=tuple(segments),
        rows_kept=rows_kept,
        row_of=row_of,
        targets=targets,
        weights=weights,
        sources=np.array([examples[member].source for member in members], dtype=np.int64)[owner],
        rows=tuple(examples[member].row for member in members),
        leaves=tuple(leaves[member] for member in members),
        padding=padding,
    )


def _numbered(places: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """The different ones of places below `size`, ascending, and the number of each place among them."""
    taken = np.zeros(size, bool)
    taken[places] = True
    return np.flatnonzero(taken), (np.cumsum(taken) - 1)[places]


def _runs(trie: Trie, members: Sequence[int]) -> tuple[list[_Run], dict[int, int]]:
    """The segments of a pack, depth first, and each member's last one; nodes that nobody leaves become one."""
    chosen = set(members)
    paths = {member: trie.path(member) for member in trie.order if member in chosen}
    users = Counter(node for path in paths.values() for node in path)
    runs: list[_Run] = []
    place: dict[int, int] = {}
    leaves: dict[int, int] = {}
    for member, path in paths.items():
        here = -1
        for node in path:
            if node not in place:
                parent = trie.parents[node]
                if here >= 0 and users[parent] == users[node]:
                    runs[here] = _Run(member, runs[here].first, trie.ends[node], runs[here].parent)
                else:
                    runs.append(_Run(member, trie.start(node), trie.ends[node], here))
                    here = len(runs) - 1
                place[node] = here
            here = place[node]
        leaves[member] = here
    return runs, leaves


def _subtree_ends(segments: Sequence[Segment]) -> list[int]:
    """For each segment, where the last of those that continue it ends."""
    ends = [segment.end for segment in segments]
    for index in reversed(range(len(segments))):
        parent = segments[index].parent
        if parent >= 0:
            ends[parent] = max(ends[parent], ends[index])
    return ends


def _graded(
    examples: Sequence[Example],
    ids: Sequence[IntArray],
    members: Sequence[int],
    segments: Sequence[Segment],
    position_ids: IntArray,
    leaves: dict[int, int],
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """For each graded token of each member: whose it is, the position that predicts it, itself, its weight."""
    lengths = [len(ids[member]) for member in members]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    weights = np.concatenate([np.asarray(examples[member].weights, dtype=np.float32) for member in members])
    if weights[starts].any():
        culprit = next(member for member in members if examples[member].weights[0] != 0.0)
        raise ValueError(
            f"row {examples[culprit].row}: its first token is graded, but nothing comes before it"
        )
    graded = np.flatnonzero(weights)
    owner = np.searchsorted(ends, graded, side="right")
    # members end to end, unshared, are cut where their segments begin; each piece lies by `shift` elsewhere
    firsts: list[int] = []
    shifts: list[int] = []
    for member, start in zip(members, starts.tolist(), strict=True):
        path, segment = [], leaves[member]
        while segment >= 0:
            path.append(segments[segment])
            segment = segments[segment].parent
        for part in reversed(path):
            first = start + int(position_ids[part.start])
            firsts.append(first)
            shifts.append(part.start - first)
    piece = np.searchsorted(firsts, graded - 1, side="right") - 1
    predicts = graded - 1 + np.array(shifts, dtype=np.int64)[piece]
    tokens = np.concatenate([ids[member] for member in members])
    return owner, predicts, tokens[graded], weights[graded]
