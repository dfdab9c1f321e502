"""Where burnish keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """$BURNISH_CACHE, else ~/.cache/burnish; it may not be there yet."""
    return Path(os.environ.get("BURNISH_CACHE") or Path.home() / ".cache" / "burnish")
