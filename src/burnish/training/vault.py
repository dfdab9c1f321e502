"""Where certificates and their encodings are kept between runs: a few folders, each there whole or not at all.

$BURNISH_CACHE (default ~/.cache/burnish)/certificates/KEY/
    certificate.json  ledger.jsonl  origins.json  train/  held_out/  MANIFEST.json
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from burnish.cache import cache_directory
from burnish.data.store import MANIFEST
from burnish.errors import DataError

KEPT = 8
"""How many are kept; the least recently used goes first."""

LOCK = "lock"
STALE_SECONDS = 14 * 24 * 3600
"""So long after its last change an unfinished build is taken for abandoned."""


def vault() -> Path:
    """The folder of all certificates."""
    root = cache_directory()
    try:
        (root / "certificates").mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written: nothing is kept beyond this process
        root = Path(_of_this_process())
    return root / "certificates"


@cache
def _of_this_process() -> str:
    folder = tempfile.mkdtemp(prefix="burnish-")
    Path(folder, "certificates").mkdir()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def place_of(key: str) -> Path:
    """Where the certificate of a key is, or will be."""
    return vault() / key


def touch(place: Path) -> None:
    """Mark as used now."""
    try:
        os.utime(place)
    except OSError:  # another user's cache, or one that cannot be written: it is as old as it is
        return


@contextmanager
def draft(place: Path) -> Iterator[Path]:
    """A folder to write in, which takes its place when the block ends well, and is gone when it does not."""
    folder = Path(tempfile.mkdtemp(prefix=f".tmp-{place.name[:12]}-", dir=place.parent))
    try:
        yield folder
        _flush(folder)
        try:
            folder.rename(place)
        except OSError:
            if not (place / MANIFEST).is_file():  # else another process was first, with the very same
                raise
        _flush(place.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def parts_of(key: str, *, alone: bool = True) -> Iterator[Path]:
    """Where the segments of a certificate that is being made lie; they outlive a process that is killed.

    `alone` takes the folder for this process and removes it when the block ends well; where another process has it,
    another folder is given, which nobody finds again.
    """
    folder = vault() / f".parts-{key[:32]}"
    lock = _locked(folder, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    if lock is None and not alone:
        raise DataError(
            f"{folder}: another process is building it by itself",
            rule="several build together where each builds a share",
            remedy="wait for it; its certificate will be found",
        )
    if lock is None:
        with tempfile.TemporaryDirectory(prefix=".tmp-parts-", dir=vault()) as own:
            yield Path(own)
        return
    with lock:
        try:
            yield folder
        except BaseException:
            if [*folder.iterdir()] == [folder / LOCK]:  # nothing that another process could go on with
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if alone:
            shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path, how: int) -> IO[str] | None:
    """The folder's lock, open and held; None where another process holds it."""
    with ExitStack() as stack:
        try:
            folder.mkdir(exist_ok=True)
            lock = stack.enter_context((folder / LOCK).open("w"))
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except OSError:
            return None
        stack.pop_all()
        return lock


def discard(place: Path) -> None:
    """Remove a certificate, out of sight first; files that a run has mapped stay readable to it."""
    if place.exists():
        trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=place.parent))
        place.rename(trash / place.name)
        shutil.rmtree(trash, ignore_errors=True)


def prune() -> None:
    """Let the least recently used ones go, and what a killed process left long ago."""
    for path in vault().glob(".*"):
        with suppress(OSError):  # another process was first
            if path.stat().st_mtime < time.time() - STALE_SECONDS:
                shutil.rmtree(path)
    kept = [
        path for path in vault().iterdir() if (path / MANIFEST).is_file() and not path.name.startswith(".")
    ]
    for path in sorted(kept, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        discard(path)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
