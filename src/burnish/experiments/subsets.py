"""Nested, stratified subsets of a recipe's training rows, written so that a subset is a `max_samples` of each source.

    pool/seed-0/source-0.jsonl    the first source's rows in the order in which seed 0 takes them
    pool/seed-0/source-1.jsonl
    pool/held_out-0.jsonl         what every cell is measured on: the recipe's held-out rows, by its own seed

A source of n rows has its k-th at (k + 1/2) / n of the way, and a subset is what lies before one point: 30 rows of a
pool of 800 and 200 are 24 and 6, and all of them are among the 100 of the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from burnish.curation.records import to_record
from burnish.data.read import read_source
from burnish.data.rows import read_rows, replay_source
from burnish.data.split import content_key
from burnish.errors import DataError, UsageError
from burnish.recipe.choices import DataFormat
from burnish.recipe.schema import DatasetSource, Recipe
from burnish.types import Completion, Conversation, Document, Row

FORMATS = {
    Conversation: DataFormat.MESSAGES,
    Completion: DataFormat.PROMPT_COMPLETION,
    Document: DataFormat.TEXT,
}


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that may be trained on, source by source, and those that are measured on, by their source's title."""

    sources: tuple[DatasetSource, ...]
    train: tuple[tuple[Row, ...], ...]
    held_out: dict[str, list[Row]]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The training rows of each source."""
        return tuple(len(rows) for rows in self.train)


def rows_of(recipe: Recipe) -> Rows:
    """Read, deduplicate and split a recipe's rows as training does; UsageError where nothing is held out."""
    if recipe.stages:
        raise UsageError(
            f"the recipe has {len(recipe.stages)} stages",
            rule="a curve is over the rows of one stage: subsets of several would not be comparable",
            remedy="give a recipe without stages, with the model that the earlier ones made",
        )
    read = read_rows(recipe)
    if not read.held_out:
        raise UsageError(
            "the recipe holds no row out",
            rule="what a size is worth is measured on rows that no size trains on",
            remedy="say val_set_size=200, or name val_datasets",
        )
    first, replayed = len(recipe.held_out_sources), replay_source(recipe)
    numbers = [k for k in range(first, len(recipe.sources)) if k != replayed]
    train = tuple(tuple(row for row in read.train if row.source == number) for number in numbers)
    kept = [(recipe.sources[number], rows) for number, rows in zip(numbers, train, strict=True) if rows]
    if not kept:
        raise DataError(
            "no training row is left",
            rule="a curve needs rows to draw subsets of",
            remedy="look at the reasons: burnish check RECIPE",
        )
    held_out: dict[str, list[Row]] = {}
    for row in read.held_out:
        held_out.setdefault(recipe.sources[row.source].title, []).append(row)
    return Rows(tuple(source for source, _ in kept), tuple(rows for _, rows in kept), held_out)


def write_order(rows: Rows, folder: Path, *, seed: int) -> list[Path]:
    """Each source's rows in the order in which a seed takes them; a row hangs on its content, not on its place."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, own in enumerate(rows.train):
        ordered = sorted(own, key=lambda row: blake2b(content_key(row), key=str(seed).encode()).digest())
        paths.append(write_rows(ordered, folder / f"source-{number}.jsonl"))
    return paths


def write_held_out(rows: Rows, folder: Path) -> list[dict[str, Any]]:
    """The held-out rows as the `datasets` of a recipe that only reads them."""
    told = []
    for number, (title, own) in enumerate(rows.held_out.items()):
        path = write_rows(own, folder / f"held_out-{number}.jsonl")
        told.append(
            {"path": str(path), "name": title, "format": FORMATS[type(own[0].content)], "rows": len(own)}
        )
    return told


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """Rows as JSONL that reads back as the same content; DataError for one that would not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(b"".join(orjson.dumps(to_record(row.content)) + b"\n" for row in rows))
    draft.replace(path)
    kinds = {type(row.content) for row in rows}
    if len(kinds) > 1:
        raise DataError(
            f"{rows[0].origin.file}: rows of {len(kinds)} kinds ({', '.join(sorted(k.__name__ for k in kinds))})",
            rule="a file has one format, and subsets are written as files",
            remedy="make each kind a dataset of its own",
        )
    source = DatasetSource(path=str(path), format=FORMATS[kinds.pop()])
    again = read_source(source, source_index=0, first_index=0)
    for row, read in zip(rows, again, strict=True):
        if not isinstance(read, Row) or content_key(read) != content_key(row):
            raise DataError(
                f"{row.origin}: written as a record of its own, the row does not read back the same",
                rule="a subset holds the very rows of the recipe",
                remedy="write the data as messages first: burnish data convert",
            )
    return path


def apportion(sizes: Sequence[int], number: int) -> list[int]:
    """How many rows of each source the subset of so many holds; what a smaller one holds, a larger one holds too."""
    places = sorted(((k + 0.5) / size, source) for source, size in enumerate(sizes) for k in range(size))
    counts = [0] * len(sizes)
    for _, source in places[:number]:
        counts[source] += 1
    return counts


def describe_sources(rows: Rows) -> list[dict[str, Any]]:
    """The sources as the cells' recipes name them: everything but the path, and how many rows there are."""
    left = {"path", "prompt", "response", "split", "held_out", "max_samples", "format", "name"}
    return [
        {
            **source.model_dump(mode="json", exclude=left),
            "name": source.title,
            "format": FORMATS[type(own[0].content)].value,
            "rows": len(own),
        }
        for source, own in zip(rows.sources, rows.train, strict=True)
    ]


def subset(
    sources: Sequence[Mapping[str, Any]], folder: Path, number: int, *, halved: int | None = None
) -> list[dict[str, Any]]:
    """The first `number` rows of a seed's folder as the `datasets` of a recipe; of a `halved` source, half as many."""
    counts = apportion([source["rows"] for source in sources], number)
    told = []
    for place, (source, count) in enumerate(zip(sources, counts, strict=True)):
        taken = max(1, count // 2) if place == halved else count
        if count:
            said = {key: value for key, value in source.items() if key != "rows"}
            told.append({**said, "path": str(folder / f"source-{place}.jsonl"), "max_samples": taken})
    return told


def default_sizes(total: int) -> list[int]:
    """About three sizes to a factor of ten, the whole pool last: 10, 30, 100, 300, 1,000, ..., total."""
    steps = [m * 10**power for power in range(1, 9) for m in (1, 3)]
    return [size for size in steps if size < 0.8 * total] + [total]


def require_sizes(asked: Sequence[int], total: int) -> list[int]:
    """The sizes in order, each once; UsageError where one is no size of a subset."""
    if not asked:
        return default_sizes(total)
    bad = [size for size in asked if not 1 <= size <= total]
    if bad or len(set(asked)) < 2:
        raise UsageError(
            f"--sizes {','.join(map(str, asked))}: the recipe has {total:,} training rows",
            rule="a curve has two sizes or more, each from 1 to the number of training rows",
            remedy=f"--sizes {','.join(map(str, default_sizes(total)))}",
        )
    return sorted(set(asked))
