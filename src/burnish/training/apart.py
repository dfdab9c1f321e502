"""What one stage holds out, no other stage trains on: the rows are compared by what they say.

CERTIFICATE/keys    16 bytes of each row that is held out, then of each that is trained on, and how many are which
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

from burnish.data.rows import HELD_OUT, TRAIN, Rows
from burnish.errors import DataError

SIDES = (("train", TRAIN), ("held_out", HELD_OUT))


def write_keys(rows: Rows, folder: Path) -> None:
    """Keep the keys of the rows beside their encodings."""
    for side, fate in SIDES:
        (folder / f"{side}.keys").write_bytes(rows.keys[rows.fates == fate].tobytes())


def require_apart(names: Sequence[str], places: Sequence[Path]) -> None:
    """DataError where a stage trains on a row that another one holds out."""
    # Sixteen bytes as one value that numpy can sort; zeros at the end compare as they should.
    keys = [{side: np.fromfile(place / f"{side}.keys", "S16") for side, _ in SIDES} for place in places]
    for holds, trains in permutations(range(len(names)), 2):
        common = int(np.isin(keys[holds]["held_out"], keys[trains]["train"]).sum())
        if common:
            raise DataError(
                f"stage {names[trains]} trains on {common:,} of the rows that stage {names[holds]} holds out",
                rule="what is held out is measured over the whole run, and no stage trains on it",
                remedy="put these rows in a file under val_datasets of the run: every stage leaves them out",
            )
