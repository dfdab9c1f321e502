"""Segments that an earlier certificate holds already: where rows were added to the data, only those are encoded.

    CERTIFICATE/segments/  index.json   {"keys": ["5f1c...", ...], "ends": {"train": [{"ids": 81920, ...}, ...], ...}}
                           000000.json  what was found of the segment beside its encodings

A segment's key is a hash of all that its encodings hang on: template, tokenizer, options and code, and of its rows
what they say, which number they have, where they stand and on which side they are. So rows behind the last one leave
all keys but the last as they were, and rows drawn to the other side change those of the segments that they stand in.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from burnish.data.joining import cut_out, sizes_of
from burnish.data.prepare import SIDES
from burnish.data.rows import Rows
from burnish.data.store import opened, seal
from burnish.errors import DataError
from burnish.training.vault import draft, vault

FOUND = "found.json"
_FOLDER, _INDEX = "segments", "index.json"
_OF_THE_WHOLE = frozenset({"val_set_size", "seed"})
"""Options that decide on which side a row is, and nothing of its encoding."""


def segment_keys(rows: Rows, parts: dict[str, Any]) -> list[str]:
    """The key of each segment; `parts` are those of the certificate's key."""
    shared = {name: part for name, part in parts.items() if name != "datasets"}
    shared["options"] = {k: v for k, v in parts["options"].items() if k not in _OF_THE_WHOLE}
    shared["has_conversations"] = rows.has_conversations
    start = hashlib.sha256(orjson.dumps(shared, option=orjson.OPT_SORT_KEYS))
    return [_key(rows, first, last, start.copy()) for first, last in rows.bounds]


def _key(rows: Rows, first: int, last: int, found: Any) -> str:
    for column in (rows.keys, rows.fates, rows.sources, rows.indices):
        found.update(np.ascontiguousarray(column[first:last]).data)
    if last > first:
        places = rows.origins.within(int(rows.indices[first]), int(rows.indices[last - 1]) + 1)
        found.update(orjson.dumps(places))
    return str(found.hexdigest())


def keep(folder: Path, places: Sequence[Path], keys: Sequence[str]) -> None:
    """Note beside encodings that were joined from `places` where each segment ends, and what was found of it."""
    ends: dict[str, list[dict[str, int]]] = {side: [] for side in SIDES}
    (folder / _FOLDER).mkdir()
    for number, place in enumerate(places):
        for side, told in ends.items():
            before = told[-1] if told else {}
            told.append({name: before.get(name, 0) + size for name, size in sizes_of(place / side).items()})
        shutil.copyfile(place / FOUND, folder / _FOLDER / f"{number:06d}.json")
    (folder / _FOLDER / _INDEX).write_bytes(orjson.dumps({"keys": list(keys), "ends": ends}))


def adopt(places: Sequence[Path], keys: Sequence[str]) -> None:
    """Put in their places the segments that are not there and that some certificate holds."""
    missing = {key: place for place, key in zip(places, keys, strict=True) if not place.is_dir()}
    for holder in _holders() if missing else ():
        try:
            index = orjson.loads((holder / _FOLDER / _INDEX).read_bytes())
            held = [number for number, key in enumerate(index["keys"]) if key in missing]
            if held:
                opened(holder)  # every byte as it was written
            for number in held:
                place = missing.pop(index["keys"][number])
                with draft(place) as folder:
                    _take_over(holder, index["ends"], number, folder)
                    seal(folder, {"segment": int(place.name)})
        except (DataError, OSError):  # damaged, or pruned meanwhile: its rows are encoded
            continue


def _holders() -> Iterator[Path]:
    return (path.parents[1] for path in sorted(vault().glob(f"[!.]*/{_FOLDER}/{_INDEX}")))


def _take_over(holder: Path, ends: dict[str, list[dict[str, int]]], number: int, folder: Path) -> None:
    for side in SIDES:
        before = ends[side][number - 1] if number else dict.fromkeys(ends[side][0], 0)
        cut_out(holder / side, folder / side, before, ends[side][number])
    shutil.copyfile(holder / _FOLDER / f"{number:06d}.json", folder / FOUND)
