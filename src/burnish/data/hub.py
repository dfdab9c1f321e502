"""Rows of a dataset on the Hugging Face hub, streamed through `datasets`."""

from __future__ import annotations

from collections.abc import Iterator

import datasets

from burnish.data.arrow import without_nulls
from burnish.data.reject import Numbered
from burnish.errors import DataError


def read_hub(name: str, split: str | None) -> Iterator[Numbered]:
    """Yield the rows of one split, counted from 1; no code of the dataset's own is ever run."""
    wanted = split or "train"
    number = 0
    try:
        rows = datasets.load_dataset(name, split=wanted, streaming=True)
        for number, fields in enumerate(rows, start=1):
            yield number, without_nulls(fields)
    except (OSError, ValueError, RuntimeError) as error:
        place = f"row {number + 1}" if number else f"split {wanted!r}"
        raise DataError(
            f"{name}: {place}: {type(error).__name__}: {_first_line(error)}",
            rule="a path that is no file or folder is read from the hub, by its name and split",
            remedy="check the spelling, `split:` and the network; or download the files and name them",
        ) from None


def hub_revision(name: str) -> str | None:
    """The commit that the hub gives for a dataset now; None where it does not say, or cannot be reached."""
    from huggingface_hub import HfApi  # here alone, and a tenth of a second

    try:
        return HfApi().dataset_info(name, timeout=10).sha
    except (OSError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    """The first line of what the hub library says."""
    return (str(error).splitlines() or ["no reason given"])[0]
