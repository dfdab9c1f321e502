"""JSON lines that only grow: one line is one write, so a killed process leaves whole lines and one torn one."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from burnish.errors import DataError, UsageError


class LineFile:
    """Such a file, open in one process at a time; a torn last line is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise UsageError(
                f"{path}: another process is writing to it",
                rule="one process at a time writes here, or both would do, and pay for, the same work",
                remedy="wait for the other one, or name another place",
            ) from error
        data = path.read_bytes()
        self._size = data.rfind(b"\n") + 1
        if self._size < len(data):
            os.ftruncate(self._file, self._size)

    def append(self, fields: Mapping[str, Any]) -> None:
        """Add a line; on a full disk what was written of it is taken back."""
        line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._size += len(line)

    def close(self) -> None:
        """Make what was written last, and let others in."""
        os.fsync(self._file)
        os.close(self._file)


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place and object; DataError for a line that is none."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                fields = orjson.loads(line)
                if not isinstance(fields, dict):
                    raise ValueError(f"a {type(fields).__name__}, not an object")
            except ValueError as error:
                raise spoiled(f"{path}:{number}", error) from error
            yield f"{path}:{number}", fields


def spoiled(place: str, error: Exception) -> DataError:
    """The error for a line that burnish did not write."""
    return DataError(
        f"{place}: {error!r}",
        rule="such a file holds what burnish wrote there, line by line",
        remedy="remove that line; the others stay",
    )
