"""Folders on disk: made durable, and taken away in one step. Nothing here imports torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from burnish.checkpoint.faults import point


def flush(path: Path) -> None:
    """Have a file's bytes, or a folder's names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(directory: Path) -> None:
    """Delete a folder: gone from sight at once, whatever happens to the slow delete."""
    trash = directory.with_name(f".trash-{directory.name}-{os.getpid()}")
    shutil.rmtree(trash, ignore_errors=True)
    point("trash", directory)
    directory.rename(trash)
    point("unlink", trash)
    shutil.rmtree(trash, ignore_errors=True)
