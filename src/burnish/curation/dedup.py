"""Which rows repeat an earlier or better one: exactly after normalisation, or nearly.

    first pass    every row -> its sketch, in a journal on disk (curation/sketch.py); killed, it goes on where it was
    in between    rows of equal hash; bands of MinHash slots -> candidates -> true Jaccard -> what repeats what
    second pass   the rows that repeat nothing are written, the others entered with the place of the row they repeat

A row goes only where it is itself as similar as asked to a row that stays: likeness is never handed on along a chain
(A like B, B like C says nothing of A and C), which is what makes single-linkage clusters swallow unlike rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from burnish.curation.flow import KEPT, Verdict, removed
from burnish.curation.items import Input, Item, Progress, chunks, read_items
from burnish.curation.journal import Journal
from burnish.curation.neighbours import Near, near_duplicates
from burnish.curation.sketch import ROW, SLOTS, Array, Sketcher
from burnish.curation.spread import spread
from burnish.curation.texts import Part

THRESHOLD = 0.5
"""Below the similarity that 5% of edited characters leave, also where a text repeats itself; edits decide the rest."""

EDITS = 0.06
"""The share of characters or words that may differ: 5%, and room for rounding in short rows."""

_ROWS, _TEXTS, _SLOTS, _PLACES = "rows.bin", "texts.bin", "slots.bin", "places.txt"


@dataclass(frozen=True)
class Question:
    """What counts as a repeat: compared on which part, at which similarity (1.0: equal text only), edits."""

    part: Part = "both"
    threshold: float = THRESHOLD
    keep: str = "first"
    edits: float = EDITS

    @property
    def near(self) -> bool:
        """Whether rows that are merely alike are looked for too."""
        return self.threshold < 1.0


@dataclass(frozen=True)
class Repeats:
    """For the number of each row that goes: the number of the row it repeats, and how similar they are."""

    of: Mapping[int, tuple[int, float]]
    places: Mapping[int, str]

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """The judge: a row that repeats another goes, and says which."""
        return [self._verdict(item.row.index) for item in items]

    def _verdict(self, index: int) -> Verdict:
        found = self.of.get(index)
        if found is None:
            return KEPT
        original, similarity = found
        if similarity == 1.0:
            return removed("duplicate", f"same text as {self.places[original]}")
        return removed("near duplicate", f"similarity {similarity:.3f} to {self.places[original]}")


def find_repeats(
    inputs: Sequence[Input],
    question: Question,
    *,
    folder: Path,
    key: Mapping[str, Any],
    scores: Mapping[str, float] | None = None,
    processes: int = 1,
    progress: Progress = lambda done, total: None,
) -> Repeats:
    """Do the first pass and the comparison; `folder` is for scratch files, and is gone at the end."""
    names = [_ROWS, _PLACES, *([_TEXTS, _SLOTS] if question.near else [])]
    with Journal(folder, [*names, "scores.bin"], key=key) as journal:
        _sketch(journal, inputs, question, scores, processes=processes, progress=progress)
        rows = np.fromfile(folder / _ROWS, ROW)
        rank = _ranks(rows, question.keep, np.fromfile(folder / "scores.bin", "<f8"))
        original = _equal(rows, rank)
        found = {int(k): (int(original[k]), 1.0) for k in np.flatnonzero(original != np.arange(len(rows)))}
        if question.near:
            single = np.flatnonzero((original == np.arange(len(rows))) & rows["has"])
            found |= _near(folder, rows, single, rank, question)
            found = _led_on(found)
        numbers = rows["index"]
        repeats = {int(numbers[k]): (int(numbers[o]), similarity) for k, (o, similarity) in found.items()}
        named = _places(folder / _PLACES, {o: int(numbers[o]) for o, _ in found.values()})
        journal.remove()
    return Repeats(repeats, named)


def _sketch(
    journal: Journal,
    inputs: Sequence[Input],
    question: Question,
    scores: Mapping[str, float] | None,
    *,
    processes: int,
    progress: Progress,
) -> None:
    """The first pass: every row's sketch, score and place to the journal."""
    done, base = journal.state.get("done", 0), journal.state.get("bytes", 0)
    stream = chunks(islice(read_items(inputs), done, None))
    for chunk, sketches in spread(Sketcher(question.part, question.near), stream, processes=processes):
        items = [item for item in chunk if isinstance(item, Item)]
        sketches.rows["end"] += np.uint64(base)
        base += len(sketches.texts)
        journal.streams[_ROWS].write(sketches.rows.tobytes())
        journal.streams[_PLACES].write("".join([_line(item) for item in items]).encode())
        wanted = [0.0] * len(items) if scores is None else [scores.get(item.key, -np.inf) for item in items]
        journal.streams["scores.bin"].write(np.array(wanted, "<f8").tobytes())
        if sketches.slots is not None:
            journal.streams[_TEXTS].write(sketches.texts)
            journal.streams[_SLOTS].write(sketches.slots.tobytes())
        done += len(chunk)
        journal.reach({"done": done, "bytes": base})
        progress(done, None)
    journal.save({"done": done, "bytes": base})


def _line(item: Item) -> str:
    """The row's place as one line, whatever characters the file's name has."""
    origin = item.row.origin
    return f"{_on_one_line(origin.file)}:{origin.line}\n"


@lru_cache(maxsize=8)
def _on_one_line(name: str) -> str:
    return name.replace("\n", "\\n").replace("\r", "\\r")


def _places(path: Path, wanted: Mapping[int, int]) -> dict[int, str]:
    """The places of the rows that others repeat, by the rows' numbers; the file has a line for every row."""
    with path.open(encoding="utf-8") as lines:
        return {wanted[k]: line.rstrip("\n") for k, line in enumerate(lines) if k in wanted}


def _ranks(rows: Array, keep: str, scores: Array) -> Array:
    """Each row's place in the order of preference, 0 the best: what a group of repeats is kept by."""
    match keep:
        case "longest":
            order = np.lexsort((rows["index"], -rows["length"].astype(np.int64)))
        case "score":
            order = np.lexsort((rows["index"], -scores))
        case _:
            order = np.arange(len(rows))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows))
    return rank


def _equal(rows: Array, rank: Array) -> Array:
    """For each row the best row of the same text, itself where it is the best or has no text to compare."""
    original = np.arange(len(rows))
    order = np.lexsort((rank, rows["low"], rows["high"]))
    if not len(order):
        return original
    high, low = rows["high"][order], rows["low"][order]
    begins = np.ones(len(order), bool)
    begins[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
    original[order] = order[first]
    return np.where(rows["has"], original, np.arange(len(rows)))


def _near(
    folder: Path, rows: Array, single: Array, rank: Array, question: Question
) -> dict[int, tuple[int, float]]:
    """Near duplicates among the rows of distinct text."""
    if len(single) < 2:
        return {}
    slots = np.asarray(np.memmap(folder / _SLOTS, np.uint32, "r")).reshape(-1, SLOTS)
    texts = np.asarray(np.memmap(folder / _TEXTS, np.uint8, "r"))
    starts = np.concatenate([[0], rows["end"][:-1]]).astype(np.int64)
    ends = rows["end"].astype(np.int64)

    def text_of(k: int) -> str:
        return texts[starts[k] : ends[k]].tobytes().decode("utf-8", "surrogatepass")

    return near_duplicates(Near(slots, text_of, rank, question.threshold, question.edits), single)


def _led_on(found: dict[int, tuple[int, float]]) -> dict[int, tuple[int, float]]:
    """Equal rows of a row that went as a near duplicate name the row that stayed, and their likeness to it."""
    led: dict[int, tuple[int, float]] = {}
    for k, (original, similarity) in found.items():
        led[k] = found[original] if similarity == 1.0 and original in found else (original, similarity)
    return led
