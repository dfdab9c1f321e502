"""Room on the disk, asked for before it is needed: before training, and before each save."""

from __future__ import annotations

import shutil
from pathlib import Path

from burnish.errors import BurnishError

SPARE = 1 << 20
"""Headers, JSON, and what the file system itself needs."""


def require_room(folder: Path, num_bytes: int, *, for_what: str = "this checkpoint") -> None:
    """BurnishError where the disk of `folder` has less than `num_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes + SPARE:
        raise BurnishError(
            f"{folder}: {free:,} bytes are free, and {for_what} takes {num_bytes + SPARE:,}",
            rule="a save begins only where there is room for all of it; the checkpoints before it stay as they are",
            remedy="make room, lower save_total_limit, or say output_dir=... on another disk",
        )
