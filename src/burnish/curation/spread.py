"""A function over chunks, in this process or in several, answers in order.

    for chunk, answer in spread(judge, chunks(rows), processes=4): ...

Children are started afresh (no fork of a process that has threads), and take the function once. At most a few chunks
per child are on their way, so memory does not grow with the data.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from burnish.errors import BurnishError, UsageError

AHEAD = 3
"""So many chunks per child wait or are worked on: enough that none is idle."""

Chunk = TypeVar("Chunk")
Answer = TypeVar("Answer")

_function: Callable[[Any], Any]


def spread(
    function: Callable[[Chunk], Answer], chunks: Iterable[Chunk], *, processes: int = 1
) -> Iterator[tuple[Chunk, Answer]]:
    """Each chunk with the function's answer, in the order of the chunks."""
    if processes < 1:
        raise UsageError(
            f"--processes {processes}",
            rule="work is done in at least one process",
            remedy=f"write a number from 1 to {os.cpu_count()}, the cores of this machine",
        )
    if processes == 1:
        for chunk in chunks:
            yield chunk, function(chunk)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_take, initargs=(function,))
    waiting: deque[tuple[Chunk, Future[Answer]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(_answer, chunk)))
            if len(waiting) >= AHEAD * processes:
                first, answer = waiting.popleft()
                yield first, answer.result()
        for first, answer in waiting:
            yield first, answer.result()
    except BrokenProcessPool as broken:
        raise BurnishError(
            f"one of the {processes} processes that share the work ended before it answered",
            rule="rows are judged all of them or not at all; what was finished before this command is as it was",
            remedy="see who ended it (`dmesg | grep -i 'killed process'` where memory ran out), or say --processes 1",
        ) from broken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _take(function: Callable[[Any], Any]) -> None:
    """Keep the function for this child's life: it may hold large tables."""
    global _function
    _function = function


def _answer(chunk: Any) -> Any:
    return _function(chunk)
