"""Work on its way: files that only grow, in a folder of their own, cut back to the last save after a kill.

.clean.jsonl.draft/   job.json     what is being made, from which files
                      rows.jsonl   ... the streams, by name
                      state.json   how far they are: the worker's own counts, and each stream's size at that moment
                      lock         held by the process that writes
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson

from burnish.errors import UsageError

SAVE_SECONDS = 2.0
"""How much work an interruption costs at most."""


class Journal:
    """Append-only streams that are taken up where a process left them, if it did the same job.

    Used as a context manager, which holds the lock. `state` is what the last save said, {} for a new journal.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, key: Mapping[str, Any]) -> None:
        self.folder = folder
        self._names = tuple(names)
        self._key = orjson.loads(orjson.dumps(key, default=str, option=orjson.OPT_SORT_KEYS))
        self._saved = time.monotonic()
        self.state: dict[str, Any] = {}
        self.streams: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UsageError(
                f"{self.folder}: another process is writing there",
                rule="one process writes one file",
                remedy="wait for the other one, or name another file with --out",
            ) from None
        self.state = self._left_behind()
        sizes = self.state.pop("sizes", {})
        if not sizes:
            (self.folder / "job.json").write_bytes(orjson.dumps(self._key))
        self.streams = {name: _open_at(self.folder / name, sizes.get(name, 0)) for name in self._names}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in (*self.streams.values(), self._lock):
            stream.close()

    def reach(self, state: Mapping[str, Any]) -> None:
        """All work up to here is written; saved every two seconds, for that is what a resume goes back to."""
        now = time.monotonic()
        if now - self._saved >= SAVE_SECONDS:
            self._saved = now
            self.save(state)

    def save(self, state: Mapping[str, Any]) -> None:
        """Make what was written last, and say how far it is."""
        self.sync()
        sizes = {name: stream.tell() for name, stream in self.streams.items()}
        partial = self.folder / "state.json.partial"
        partial.write_bytes(orjson.dumps({**state, "sizes": sizes}))
        partial.replace(self.folder / "state.json")

    def sync(self) -> None:
        """Hand every stream's bytes to the disk."""
        for stream in self.streams.values():
            stream.flush()
            os.fsync(stream.fileno())

    def remove(self) -> None:
        """Delete the folder: the work is done, or given up."""
        shutil.rmtree(self.folder)

    def _left_behind(self) -> dict[str, Any]:
        """The state that the same job left, or {} where there is none that can be gone on with."""
        try:
            state: dict[str, Any] = orjson.loads((self.folder / "state.json").read_bytes())
            usable = orjson.loads((self.folder / "job.json").read_bytes()) == self._key
            usable = usable and set(state["sizes"]) == set(self._names)
            usable = usable and all(
                (self.folder / name).stat().st_size >= size for name, size in state["sizes"].items()
            )
        except (OSError, ValueError, KeyError):
            usable = False
        if usable:
            return state
        (self.folder / "state.json").unlink(missing_ok=True)
        return {}


def _open_at(path: Path, size: int) -> BinaryIO:
    """The file cut to a size, open for writing at its end."""
    stream = path.open("r+b" if path.exists() else "w+b")
    stream.truncate(size)
    stream.seek(size)
    return stream
