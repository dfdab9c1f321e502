"""What libraries raise over a directory from elsewhere, in three parts: whatever it is, the directory is at fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from burnish.errors import BurnishError, DataError


@contextmanager
def reading(what: object, *, rule: str, remedy: str) -> Iterator[None]:
    """Turn any exception of the block into a DataError about `what`, but for a lack of memory.

    Rust's panics (a tokenizer.json, a safetensors header) reach Python as a BaseException of that name.
    """
    try:
        yield
    except (BurnishError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        first = str(error).strip() or type(error).__name__
        raise DataError(f"{what}: {first}", rule=rule, remedy=remedy) from error
