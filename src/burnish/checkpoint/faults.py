"""Where a save can be cut: the places at which the campaigns kill the process or let the disk fail.

    BURNISH_FAULT=kill@rename:2                        SIGKILL the second time a checkpoint gets its name
    BURNISH_FAULT=ENOSPC@write:weights.safetensors:5   the fifth write to that file fails as a full disk does

Without the variable a place costs one comparison. `docs/reliability.md` has what the campaigns found.
"""

from __future__ import annotations

import errno
import os
import signal

ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT")
_met: dict[str, int] = {}


def point(boundary: str, path: os.PathLike[str] | str = "") -> None:
    """Pass a place; end the process, or raise OSError, where `BURNISH_FAULT` says so. `write` means every file's."""
    asked = os.environ.get("BURNISH_FAULT")
    if not asked:
        return
    action, _, rest = asked.partition("@")
    where, _, count = rest.rpartition(":")
    if boundary != where and boundary.split(":")[0] != where:
        return
    _met[where] = _met.get(where, 0) + 1
    if _met[where] != int(count):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    number = getattr(errno, action)
    raise OSError(number, os.strerror(number), str(path))


def forget() -> None:
    """Count from the start again, for tests that share a process."""
    _met.clear()
