"""The encodings of a recipe's rows, built by segments that are there whole or not at all, then laid end to end.

    PARTS/000000/  train/  held_out/  found.json  MANIFEST.json
    PARTS/000001/  ...

A build that was killed finds the segments that it finished, and ends in the bytes of one that was not; so does one of
data that was added to, which finds those of the certificate before (`training.appended`). A set that is no larger than
a segment is built in its place. `share` leaves segments to other machines, which see the same folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import orjson

from burnish.data.joining import join_files
from burnish.data.ledger import Entry, Ledger
from burnish.data.prepare import SIDES, Prepared, encode_rows, encode_segment, require_rows
from burnish.data.rows import Rows, Segment
from burnish.data.store import RowsWriter, opened, seal
from burnish.data.workers import Workers
from burnish.errors import DataError
from burnish.training.appended import FOUND, adopt, keep, segment_keys
from burnish.training.proof import Proof
from burnish.training.vault import discard, draft


@dataclass(slots=True)
class Found:
    """What was learnt of a segment beside its encodings, and of all of them once they are joined."""

    proof: Proof = field(default_factory=Proof)
    entries: list[Entry] = field(default_factory=list)
    stop_ids: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        told = {
            "proof": self.proof.as_dict(),
            "entries": [asdict(entry) for entry in self.entries],
            "stop_ids": sorted(self.stop_ids),
            "counts": dict(self.counts),
        }
        path.write_bytes(orjson.dumps(told))

    def take_in(self, path: Path) -> None:
        """Add what was written of a segment."""
        told: dict[str, Any] = orjson.loads(path.read_bytes())
        self.proof.take_in(told["proof"])
        self.entries += [Entry(**entry) for entry in told["entries"]]
        self.stop_ids.update(told["stop_ids"])
        self.counts.update(told["counts"])


def build(
    rows: Rows, workers: Workers, folder: Path, parts: Path, key_parts: dict[str, Any]
) -> tuple[Prepared, Found]:
    """All rows encoded into the folder's `train` and `held_out`, by way of segments in `parts` where they are many."""
    found = Found()
    if len(rows.bounds) == 1:
        data = encode_rows(rows, workers.encode_all, rows.recipe, folder=folder, inspect=found.proof.inspect)
        found.proof.check_pack()
        found.stop_ids, found.counts = workers.stop_ids, workers.counts
        return data, found
    keys = segment_keys(rows, key_parts)
    places = build_segments(rows, workers, parts, keys)
    for place in places:
        found.take_in(place / FOUND)
    train, held_out = (join_files([place / side for place in places], folder / side) for side in SIDES)
    keep(folder, places, keys)
    ledger = rows.ledger.with_entries(found.entries)
    return require_rows(Prepared(train, held_out, rows.origins, ledger)), found


def build_segments(
    rows: Rows, workers: Workers, parts: Path, keys: Sequence[str], *, share: tuple[int, int] = (0, 1)
) -> list[Path]:
    """Encode the segments that are nowhere, of every `share[1]` the one numbered `share[0]`; the places of all."""
    places = [parts / f"{number:06d}" for number in range(len(rows.bounds))]
    ours = [number % share[1] == share[0] for number in range(len(places))]
    for place in compress(places, ours):
        _discard_damaged(place)
    adopt([*compress(places, ours)], [*compress(keys, ours)])
    wanted = [is_ours and not place.is_dir() for is_ours, place in zip(ours, places, strict=True)]
    total = rows.kept_in(ours)
    workers.expect(total, done=total - rows.kept_in(wanted))
    for segment in rows.segments(wanted):
        with draft(places[segment.number]) as folder:
            _encode(segment, rows, workers, folder)
    return places


def _encode(segment: Segment, rows: Rows, workers: Workers, folder: Path) -> None:
    found, ledger = Found(), Ledger()
    ledger.count_read(len(segment.train) + len(segment.held_out))
    workers.stop_ids, workers.counts = found.stop_ids, found.counts
    writers = tuple(RowsWriter(folder / side) for side in SIDES)
    encode_segment(segment, workers.encode_all, rows.recipe, ledger, writers, found.proof.inspect)
    for writer in writers:
        writer.finish()
    found.proof.check_pack()
    found.entries = ledger.entries()
    found.write(folder / FOUND)
    seal(folder, {"segment": segment.number})


def _discard_damaged(place: Path) -> None:
    """Remove a segment unless it is there with every byte as it was written."""
    try:
        opened(place)
    except DataError:
        discard(place)
