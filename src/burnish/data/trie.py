"""Common beginnings of token sequences, found by sorting: a trie whose nodes are runs of tokens.

Four sequences, told as letters, runs of two and more shared:

    0  s s a b              node 0  s s    ends at 2
    1  s s x                node 1  a b    ends at 4, continues node 0; sequence 0 ends with it
    2  s s a b c            node 2  c      ends at 5, continues node 1
    3  q                    node 3  x      ends at 3, continues node 0
                            node 4  q      ends at 1

A sequence is the runs from its root to the node in which it ends. Sorted sequences that begin alike stand side by
side, so neighbours' common lengths tell all there is to know; no token is looked at in a Python loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from burnish.data.fill import fill

MINIMUM = 16
"""The shortest run of tokens that is shared.

Each shared run costs an attention call more in every layer, and a pack with a tree in it leaves the kernels for
plain documents. So the few tokens with which every chat begins (`<|im_start|>user`) must not make a tree; a system
prompt of a sentence or two may.
"""

Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Trie:
    """Runs of tokens: node `n` holds those from where `parents[n]` ends (0 for -1) to `ends[n]`.

    A parent's number is lower than its children's. `last[s]` is the node in which sequence `s` ends, `order` the
    sequences depth first.
    """

    parents: list[int]
    ends: list[int]
    last: list[int]
    order: list[int]

    def start(self, node: int) -> int:
        """The first position of a node's run."""
        parent = self.parents[node]
        return 0 if parent < 0 else self.ends[parent]

    def path(self, sequence: int) -> list[int]:
        """The nodes of a sequence, root first."""
        found, node = [], self.last[sequence]
        while node >= 0:
            found.append(node)
            node = self.parents[node]
        return found[::-1]

    @property
    def size(self) -> int:
        """All tokens, each run counted once."""
        return sum(end - self.start(node) for node, end in enumerate(self.ends))

    def deal(self, max_tokens: int, *, max_rows: int | None = None) -> list[list[int]]:
        """Sequences dealt to packs of at most `max_tokens` tokens, each run counted once a pack.

        Every subtree is dealt by best fit to as few parts as it needs, leaves first; parts that still have room meet
        their neighbours at the run that both continue. A sequence over `max_tokens` gets a pack of its own.
        """
        below: list[list[tuple[int, list[int]]]] = [[] for _ in self.ends]
        for sequence, node in enumerate(self.last):
            below[node].append((0, [sequence]))
        roots: list[tuple[int, list[int]]] = []
        for node in reversed(range(len(self.ends))):
            parts = _join(below[node], max_tokens - self.ends[node], max_rows)
            run = self.ends[node] - self.start(node)
            parent = self.parents[node]
            (roots if parent < 0 else below[parent]).extend((run + size, members) for size, members in parts)
        roots.sort(key=lambda part: min(part[1]))
        return sorted(sorted(members) for _, members in _join(roots, max_tokens, max_rows))


def _join(
    parts: Sequence[tuple[int, list[int]]], max_tokens: int, max_rows: int | None
) -> list[tuple[int, list[int]]]:
    if len(parts) == 1:
        return list(parts)
    sizes, counts = [size for size, _ in parts], [len(members) for _, members in parts]
    dealt = fill(sizes, max_tokens=max_tokens, max_rows=max_rows, rows=counts)
    return [
        (sum(sizes[part] for part in pack), [member for part in pack for member in parts[part][1]])
        for pack in dealt
    ]


def apart(lengths: Sequence[int]) -> Trie:
    """The trie in which nothing is shared: one node a sequence, in the order given."""
    every = list(range(len(lengths)))
    return Trie(parents=[-1] * len(lengths), ends=list(lengths), last=every, order=every)


def find_prefixes(sequences: Sequence[Ids], *, minimum: int = MINIMUM) -> Trie:
    """The trie of sequences (each of at least one token) whose shared runs are `minimum` tokens or longer."""
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]  # sort as bytes = sort as tokens
    order = sorted(range(len(keys)), key=keys.__getitem__)
    common = np.array([0, *(_common(keys[a], keys[b], minimum) for a, b in pairwise(order))])
    trie = Trie(parents=[], ends=[], last=[-1] * len(keys), order=order)
    waiting = [(0, len(order), -1)]
    while waiting:
        first, stop, parent = waiting.pop()
        depth = 0 if parent < 0 else trie.ends[parent]
        while first < stop and len(sequences[order[first]]) == depth:
            trie.last[order[first]] = parent  # the shorter of two that begin alike sorts first
            first += 1
        for start, end in _alike(common, first, stop, depth + minimum):
            alone = end - start == 1
            trie.parents.append(parent)
            trie.ends.append(len(sequences[order[start]]) if alone else int(common[start + 1 : end].min()))
            if alone:
                trie.last[order[start]] = len(trie.ends) - 1
            else:
                waiting.append((start, end, len(trie.ends) - 1))
    return trie


def _alike(
    common: np.ndarray[tuple[int], np.dtype[np.int64]], first: int, stop: int, enough: int
) -> Iterator[tuple[int, int]]:
    """The sorted places `first` to `stop` in groups whose members have `enough` tokens in common."""
    if first < stop:
        cuts = np.flatnonzero(common[first + 1 : stop] < enough) + first + 1
        yield from pairwise([first, *cuts.tolist(), stop])


def _common(one: bytes, other: bytes, minimum: int) -> int:
    """How many tokens two keys have in common; 0 where it is surely fewer than `minimum`."""
    if one[: 4 * minimum] != other[: 4 * minimum]:
        return 0
    shorter = min(len(one), len(other)) // 4
    differs = np.frombuffer(one, np.uint32, shorter) != np.frombuffer(other, np.uint32, shorter)
    first = int(differs.argmax())
    return first if differs[first] else shorter
