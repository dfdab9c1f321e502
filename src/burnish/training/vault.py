"""Where certificates and their encodings are kept between runs: a few folders, each there whole or not at all.

$BURNISH_CACHE (default ~/.cache/burnish)/certificates/KEY/
    certificate.json  ledger.jsonl  origins.json  train/  held_out/  MANIFEST.json
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from burnish.data.store import MANIFEST

KEPT = 8
"""How many are kept; the least recently used goes first."""


def vault() -> Path:
    """The folder of all certificates."""
    root = Path(os.environ.get("BURNISH_CACHE") or Path.home() / ".cache" / "burnish")
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


def discard(place: Path) -> None:
    """Remove a certificate, out of sight first; files that a run has mapped stay readable to it."""
    if place.exists():
        trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=place.parent))
        place.rename(trash / place.name)
        shutil.rmtree(trash, ignore_errors=True)


def prune() -> None:
    """Let the least recently used ones go."""
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
