"""Checkpoints written by a thread: the step that begins one waits for a copy in memory, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from burnish.checkpoint.files import Checkpoint, write_checkpoint


class Writer:
    """One checkpoint at a time on its way to `folder`; the thread calls `before` it is written and `after` it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._begun: tuple[int, Future[Path]] | None = None

    def begin(
        self, made: Checkpoint, *, copy: bool, before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        """Copy the numbers and go on; without `copy` the caller must not move them before `wait` returned.

        Call `wait` first: two saves are never under way at once.
        """
        mine = made.copied() if copy else made

        def write() -> Path:
            before()
            path = write_checkpoint(self._folder, mine)
            after()
            return path

        self._begun = (made.step, self._thread.submit(write))

    def done(self) -> tuple[int, Path] | None:
        """The step and place of a checkpoint that has become complete, once; raises what writing it raised."""
        return self.wait() if self._begun is not None and self._begun[1].done() else None

    def wait(self) -> tuple[int, Path] | None:
        """The same, after waiting for it; None where none was begun."""
        if self._begun is None:
            return None
        (step, future), self._begun = self._begun, None
        return step, future.result()

    def close(self) -> None:
        """Let what is being written come to its end."""
        self._thread.shutdown(wait=True)
