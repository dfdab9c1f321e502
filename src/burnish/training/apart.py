"""What one stage holds out, no other stage trains on: the rows are compared by what they say.

CERTIFICATE/keys    16 bytes of each row that is held out, then of each that is trained on, and how many are which
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

from burnish.data.rows import HELD_OUT, TRAIN, Rows
from burnish.data.split import Array
from burnish.errors import DataError

KEYS = "keys.npz"


def write_keys(rows: Rows, folder: Path) -> None:
    """Keep the keys of the rows beside their encodings."""
    with (folder / KEYS).open("wb") as file:
        np.savez(file, held_out=rows.keys[rows.fates == HELD_OUT], train=rows.keys[rows.fates == TRAIN])


def require_apart(names: Sequence[str], places: Sequence[Path]) -> None:
    """DataError where a stage trains on a row that another one holds out."""
    keys = []
    for place in places:
        with np.load(place / KEYS) as stored:
            keys.append({side: _as_strings(stored[side]) for side in ("held_out", "train")})
    for holds, trains in permutations(range(len(names)), 2):
        common = int(np.isin(keys[holds]["held_out"], keys[trains]["train"]).sum())
        if common:
            raise DataError(
                f"stage {names[trains]} trains on {common:,} of the rows that stage {names[holds]} holds out",
                rule="what is held out is measured over the whole run, and no stage trains on it",
                remedy="put these rows in a file under val_datasets of the run: every stage leaves them out",
            )


def _as_strings(keys: Array) -> Array:
    # Sixteen bytes as one value that numpy can sort; zeros at the end compare as they should.
    return np.ascontiguousarray(keys).view("S16").ravel()
