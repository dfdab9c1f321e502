"""Rows that a teacher made, written with a ledger of every prompt, without duplicates, a part held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnish.curation.draft import Draft, require_writable
from burnish.curation.synth import Made
from burnish.data.ledger import Entry
from burnish.data.split import content_key, hold_out
from burnish.errors import DataError
from burnish.types import Conversation, Row


@dataclass
class Written:
    """What came of a run: prompts = those with rows + those without, and why answers went."""

    out: str
    prompts: int = 0
    rows: int = 0
    held_out: int = 0
    held_out_file: str | None = None
    without_row: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**fields, "lost": dict(self.lost.most_common())}


def write_made(
    made: Iterable[Made],
    out: Path,
    *,
    key: Mapping[str, Any],
    val_size: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Written:
    """Write `out`, its ledger, and what is held out beside it as NAME.heldout.SUFFIX."""
    written = Written(str(out))
    ledger = out.with_name(f"{out.name}.ledger.jsonl")
    held_file = out.with_name(f"{out.stem}.heldout{out.suffix}")
    held_ledger = held_file.with_name(f"{held_file.name}.ledger.jsonl")
    if val_size:  # before anything is asked, and paid for
        require_writable(held_file, held_ledger, overwrite=overwrite)
    seen: set[bytes] = set()
    kept: list[Row] = []
    records: list[dict[str, Any]] = []
    with Draft(out, ledger, key=key, overwrite=overwrite) as draft:
        for number, one in enumerate(made):
            written.prompts += 1
            written.lost.update(one.lost)
            rows = 0
            for record in one.rows:
                row = Row(len(kept), 0, one.prompt.origin, Conversation(record["messages"]))
                content = content_key(row)
                if content in seen:
                    written.lost["duplicate"] += 1
                    continue
                seen.add(content)
                kept.append(row)
                records.append(record)
                rows += 1
            written.without_row += not rows
            reason = "" if rows else "duplicate" if one.rows else one.reason
            origin = one.prompt.origin
            entry = Entry(
                number, origin.file, origin.line, "kept" if rows else "dropped", reason, None, one.detail
            )
            draft.enter(entry)
            progress(written.prompts, None)
        if not kept:
            draft.keep_ledger()
            raise _nothing(written, ledger)
        _, held_out = hold_out(kept, val_size, seed=seed)
        held = {row.index for row in held_out}
        if held:
            key = {**key, "held_out": True}
            with Draft(held_file, held_ledger, key=key, overwrite=overwrite) as second:
                for row in held_out:
                    second.write(records[row.index])
                    origin = row.origin
                    second.enter(Entry(row.index, origin.file, origin.line, "kept", "held out", None, ""))
                second.finish()
            written.held_out_file = str(held_file)
        for row, record in zip(kept, records, strict=True):
            if row.index not in held:
                draft.write(record)
        draft.finish()
    written.rows, written.held_out = len(kept) - len(held), len(held)
    return written


def _nothing(written: Written, ledger: Path) -> DataError:
    reasons = ", ".join(f"{count:,} {name}" for name, count in written.lost.most_common(4))
    return DataError(
        f"{written.out}: 0 rows from {written.prompts:,} prompts ({reasons or 'nothing was asked'})",
        rule="a data set has rows; an empty file is not written",
        remedy=f"see {ledger} for each prompt; answers are kept, and nothing is paid for twice",
    )
