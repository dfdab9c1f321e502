"""Rows to tokens in several processes, in row order, whatever a template or a row does to one of them.

    with Workers(spec, num_rows=len(rows)) as workers:
        for encoded in workers.encode_all(rows):       EncodedRow(row, views, refused, unusual, violations)

A chunk of rows goes to one child, which answers early where a row runs into a limit. Where the child dies on a chunk
(memory, a crash in native code), a new child gets the rows one by one, and only the row that kills is refused. A
child that somebody else ends costs no row: the second time over one row it fails the run.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from burnish.chat.cell import START_SECONDS, Cell, ChildDied, give_back, raise_again, start, take
from burnish.chat.certificate import Violation
from burnish.chat.encode import EncoderSpec
from burnish.errors import BurnishError, DataError
from burnish.types import Conversation, Example, Row

CHUNK_ROWS = 64
CHUNK_CHARACTERS = 1 << 20
ROWS_PER_WORKER = 2_000
"""Fewer rows than this are encoded sooner than another child starts."""

MOST_BREACHES = 20
"""So many rows may run into a limit before the template is taken for a bomb."""

FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that no row sends: a child that goes too far with one runs into limits of its own, or crashes."""

_IDS, _WEIGHTS = array("i").itemsize, array("d").itemsize

Progress = Callable[[int, int], None]
"""Called with the rows done and the rows there are."""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """What became of one row: its views, or `refused` with reason and detail; what was unusual, rules it breaks."""

    row: Row
    views: list[Example]
    refused: tuple[str, str] | None
    unusual: dict[str, int]
    violations: list[Violation]


@dataclass(frozen=True, slots=True)
class _Part:
    """The first rows of a chunk, encoded, and the `rest`: none, unless a row went wrong. `alone`: one by one."""

    encoded: list[EncodedRow]
    rest: list[Row]
    alone: bool


class Workers:
    """A fixed number of children that hold the same encoder.

    `stop_ids` and `counts` grow with what the children report. Used as a context manager, which borrows the children
    and gives them back.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        *,
        num_rows: int,
        num_workers: int | None = None,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self._pickled = pickle.dumps(spec)
        self._key = hashlib.sha256(self._pickled).hexdigest()
        self._num_rows = num_rows
        self.num_workers = num_workers or workers_for(num_rows)
        self._progress = progress
        self._done = 0
        self._breaches = 0
        self._children: SimpleQueue[Cell] = SimpleQueue()
        self._busy: set[Cell] = set()
        self._is_given_up = False
        self._threads = ThreadPoolExecutor(self.num_workers)
        self.stop_ids: set[int] = set()
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for _ in range(self.num_workers):
            self._children.put(take())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # nobody waits for what is still being encoded
            self._is_given_up = True
            for child in list(self._busy):
                child.kill()
        self._threads.shutdown(cancel_futures=True)
        while not self._children.empty():
            give_back(self._children.get())

    def expect(self, total: int, *, done: int) -> None:
        """So many rows there are in all, of which so many need not be encoded: progress counts from there."""
        self._num_rows, self._done = total, done
        if done:
            self._progress(done, total)

    def encode_all(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """Every row encoded, in the order of `rows`; a few chunks ahead of the caller, never more."""
        chunks = _chunks(rows)
        ahead = [self._threads.submit(self._encode, chunk) for chunk in islice(chunks, 2 * self.num_workers)]
        waiting: deque[Future[_Part]] = deque(ahead)
        while waiting:
            part = waiting.popleft().result()
            for one in part.encoded:
                self._take_in(one)
                yield one
            self._done += len(part.encoded)
            self._progress(self._done, self._num_rows)
            if part.rest:
                waiting.appendleft(self._threads.submit(self._encode, part.rest, alone=part.alone))
            else:
                waiting.extend(self._threads.submit(self._encode, chunk) for chunk in islice(chunks, 1))

    def _encode(self, chunk: list[Row], *, alone: bool = False) -> _Part:
        """The first rows of a chunk, or the first `alone`; what is left is given back to be asked for anew."""
        asked = chunk[:1] if alone else chunk
        child = self._children.get()
        self._busy.add(child)
        try:
            encoded = self._ask(child, asked)
            return _Part(encoded, chunk[len(encoded) :], alone)
        except ChildDied as death:
            if self._is_given_up:
                raise
            if len(asked) == 1 and alone and death.signal in FROM_OUTSIDE:
                raise _killed(asked[0], death) from death
            if len(asked) == 1 and (alone or death.was_slow):
                return _Part([_refused(asked[0], death)], chunk[1:], alone)
            return _Part([], chunk, True)
        finally:
            self._busy.discard(child)
            self._children.put(child if child.alive or self._is_given_up else start())

    def _ask(self, child: Cell, chunk: list[Row]) -> list[EncodedRow]:
        header, blob = child.ask(
            {"do": "encode", "rows": chunk},
            key=self._key,
            made_from=lambda: self._pickled,
            patience=START_SECONDS,
        )
        if "error" in header:
            raise_again(header)
        try:
            encoded = list(_read_answer(chunk, header, blob))
            self.stop_ids.update(int(stop) for stop in header["stop_ids"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            child.end()
            raise ChildDied(f"gave an answer that does not fit: {error!r}") from error
        return encoded

    def _take_in(self, encoded: EncodedRow) -> None:
        self.counts.update(encoded.unusual)
        if encoded.refused and encoded.refused[0].startswith(_BREACHES):
            self._breaches += 1
        if self._breaches >= MOST_BREACHES:
            raise DataError(
                f"{encoded.row.origin}: {encoded.refused and encoded.refused[0]}, as {self._breaches} rows did",
                rule="a chat template renders a row within seconds and within a GiB",
                remedy="look at the template; it is code, and this code does not end",
            )


_BREACHES = ("template refused: took longer", "template refused: needed more", "template refused: ended")


def workers_for(num_rows: int) -> int:
    """As many workers as this process may use cores, fewer where there are few rows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, num_rows // ROWS_PER_WORKER))


def _read_answer(chunk: Sequence[Row], header: dict[str, Any], blob: bytes) -> Iterator[EncodedRow]:
    """Put the rows of an answer together from JSON and raw numbers; ValueError where they do not fit."""
    entries, tokens = header["rows"], int(header["tokens"])
    if not 0 < len(entries) <= len(chunk) or len(blob) != tokens * (_IDS + _WEIGHTS):
        raise ValueError(f"{len(entries)} of {len(chunk)} rows, {len(blob)} bytes for {tokens} tokens")
    ids, weights = array("i"), array("d")
    ids.frombytes(blob[: tokens * _IDS])
    weights.frombytes(blob[tokens * _IDS :])
    at = 0
    for row, entry in zip(chunk, entries, strict=False):
        views: list[Example] = []
        for length, turns, cut in entry.get("views", ()):
            if not 0 < length <= tokens - at:
                raise ValueError(f"a view of {length} tokens, of {tokens - at}")
            here = slice(at, at + length)
            views.append(
                Example(row.index, row.source, tuple(turns), ids[here].tolist(), weights[here].tolist(), cut)
            )
            at += length
        why = entry.get("refused") or (None if views else ("nothing encoded", ""))
        broken = [
            Violation(code, row.index, message, detail)
            for code, message, detail in entry.get("violations", ())
        ]
        yield EncodedRow(
            row, views, (str(why[0]), str(why[1])) if why else None, entry.get("unusual", {}), broken
        )


def _killed(row: Row, death: ChildDied) -> BurnishError:
    return BurnishError(
        f"{row.origin}: the process that encodes rows was {death}, as the one before it was",
        rule="a row is left out for what is in it, never because somebody ended the process that read it",
        remedy="see who ended them (`dmesg | grep -i 'killed process'` where memory ran out), then run this again",
    )


def _refused(row: Row, death: ChildDied) -> EncodedRow:
    detail = "the process that encoded this row did not live to answer"
    return EncodedRow(row, [], (f"template refused: {death}", detail), {}, [])


def _chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in chunks of a bounded number and, roughly, of bounded text."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += _characters(row)
        if len(chunk) == CHUNK_ROWS or characters > CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _characters(row: Row) -> int:
    """Roughly how much text a row holds."""
    if isinstance(row.content, Conversation):
        return sum(len(str(message.get("content"))) for message in row.content.messages)
    return sum(len(str(getattr(row.content, name))) for name in row.content.__slots__)
