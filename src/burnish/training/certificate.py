"""The certificate: every row of a recipe encoded and proved, kept with its encodings until something changes.

    {"format": 1, "ok": true, "key": "8c1f...", "parts": {...}, "rows": 19705, "kept": 19650, "views": 19650,
     "tokens": 2990120, "graded_tokens": 1290331, "violations": {}, "examples": {}, "refused": {"duplicate": 55}, ...}

`certify` reads, renders and tokenises where there is none for the key, and only opens the encodings where there is.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from burnish.data.ledger import Ledger, read_ledger
from burnish.data.prepare import Prepared, describe_formats
from burnish.data.rows import read_rows
from burnish.data.store import StoredOrigins, map_rows, opened, seal
from burnish.data.workers import Progress, Workers
from burnish.errors import DataError
from burnish.models.tokenizer import ChatTokenizer, load_chat_tokenizer
from burnish.recipe.schema import Recipe
from burnish.training.apart import write_keys
from burnish.training.appended import segment_keys
from burnish.training.building import build, build_segments
from burnish.training.key import FORMAT, key_of, key_parts
from burnish.training.vault import discard, draft, parts_of, place_of, prune, touch


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known of a recipe's encodings. `violations` counts broken rules by code, `examples` names rows.

    `split` says of the conversations that became several views how many they are, how many views they became, how
    many of them hold reasoning, and their tokens, of which `shared_tokens` begin an earlier view too.
    """

    format: int
    ok: bool
    key: str
    parts: dict[str, Any]
    rows: int
    kept: int
    held_out: int
    views: int
    tokens: int
    graded_tokens: int
    violations: dict[str, int]
    examples: dict[str, list[dict[str, Any]]]
    refused: dict[str, int]
    cut: dict[str, int]
    changes: dict[str, int]
    unusual: dict[str, int]
    split: dict[str, int]
    graded_stop_ids: list[int]
    stop_ids: list[int]
    stop_tokens: list[str]
    has_conversations: bool
    date: str | None
    formats: list[str]
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """How fast the rows were read, encoded and proved when the certificate was made."""
        return round(self.rows / self.seconds, 1)

    def require(self) -> None:
        """DataError unless no rule is broken."""
        if self.ok:
            return
        code, count = next(iter(self.violations.items()))
        first = next(iter(self.examples.get(code, ())), {})
        others = (
            f", and {len(self.violations) - 1} other rules are broken" if len(self.violations) > 1 else ""
        )
        raise DataError(
            f"{count:,} times: {code} (first: {first.get('place')}: {first.get('detail')}){others}",
            rule="training starts when every graded token of every row is proved right",
            remedy="see all of them: burnish check RECIPE; correct those rows or the template",
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """The certificate in a file."""
        return cls(**orjson.loads(path.read_bytes()))

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n")


@dataclass(frozen=True, slots=True)
class Certified:
    """A recipe's data with its certificate; `reused` where nothing was rendered or tokenised for it."""

    tokenizer: ChatTokenizer
    data: Prepared
    certificate: Certificate
    path: Path
    reused: bool


def certify(
    recipe: Recipe, *, date: datetime.date | None = None, progress: Progress = lambda done, total: None
) -> Certified:
    """The recipe's encodings and their certificate: from the cache if nothing changed, else made and kept there.

    `date` is what a template prints that prints a date; None: today.
    """
    tokenizer = recipe_tokenizer(recipe, date=date)
    parts = key_parts(recipe, tokenizer)
    place = place_of(key_of(parts))
    if place.is_dir():
        try:
            return _open(place, recipe, tokenizer, date=date, reused=True)
        except DataError:  # damaged: the rows are encoded again
            discard(place)
    with draft(place) as folder:
        _make(folder, parts, recipe, tokenizer, date=date, progress=progress)
    prune()
    return _open(place, recipe, tokenizer, date=date, reused=False)


def build_share(
    recipe: Recipe,
    share: tuple[int, int],
    *,
    date: datetime.date | None = None,
    progress: Progress = lambda done, total: None,
) -> int:
    """Encode every `share[1]`-th segment from number `share[0]` on, for a `certify` to find; how many there are.

    Processes on machines that see the same cache share the work so; a set of one segment is left to `certify`.
    """
    tokenizer = recipe_tokenizer(recipe, date=date)
    parts = key_parts(recipe, tokenizer)
    key = key_of(parts)
    rows = read_rows(recipe)
    if place_of(key).is_dir() or len(rows.bounds) == 1:
        return len(rows.bounds)
    if not rows.has_conversations:
        tokenizer = recipe_tokenizer(recipe, date=date, chat=False)
    with (
        parts_of(key, alone=False) as segments,
        Workers(tokenizer.spec, num_rows=rows.num_kept // share[1], progress=progress) as workers,
    ):
        return len(build_segments(rows, workers, segments, segment_keys(rows, parts), share=share))


def recipe_tokenizer(
    recipe: Recipe, *, date: datetime.date | None = None, chat: bool = True
) -> ChatTokenizer:
    """The tokenizer and template that a recipe's model will be asked with."""
    return load_chat_tokenizer(
        recipe.tokenizer or recipe.model,
        chat_template=recipe.chat_template,
        chat_template_kwargs=recipe.chat_template_kwargs,
        date=date,
        chat=chat,
        **encoder_options(recipe),
    )


def encoder_options(recipe: Recipe) -> dict[str, Any]:
    """The recipe's keys that an encoder takes."""
    said = recipe.model_dump(mode="json")
    return {key: said[key] for key in ("train_on", "reasoning") if key in said}


def _open(
    place: Path, recipe: Recipe, tokenizer: ChatTokenizer, *, date: datetime.date | None, reused: bool
) -> Certified:
    if opened(place).get("key") != place.name:
        raise DataError(
            f"{place}: another key", rule="a folder is named for its key", remedy="delete the folder"
        )
    certificate = Certificate.read(place / "certificate.json")
    if not certificate.has_conversations:
        tokenizer = recipe_tokenizer(recipe, date=date, chat=False)
    tokenizer.take_in(certificate.graded_stop_ids, certificate.unusual if reused else {})
    ledger = Ledger.restored(certificate.rows, read_ledger(place / "ledger.jsonl"))
    origins = StoredOrigins(orjson.loads((place / "origins.json").read_bytes()))
    data = Prepared(map_rows(place / "train"), map_rows(place / "held_out"), origins, ledger)
    touch(place)
    return Certified(tokenizer, data, certificate, place / "certificate.json", reused)


def _make(
    folder: Path,
    parts: dict[str, Any],
    recipe: Recipe,
    tokenizer: ChatTokenizer,
    *,
    date: datetime.date | None,
    progress: Progress,
) -> None:
    started = time.perf_counter()
    rows = read_rows(recipe)
    if not rows.has_conversations:
        tokenizer = recipe_tokenizer(recipe, date=date, chat=False)
    with (
        parts_of(key_of(parts)) as segments,
        Workers(tokenizer.spec, num_rows=rows.num_kept, progress=progress) as workers,
    ):
        data, found = build(rows, workers, folder, segments, parts)
    proof = found.proof
    tokenizer.take_in(found.stop_ids, found.counts)
    proof.finish(data, tokenizer)
    counts = data.ledger.counts()
    groups = (data.train, data.held_out)
    certificate = Certificate(
        format=FORMAT,
        ok=not proof.violations,
        key=key_of(parts),
        parts=parts,
        rows=counts["read"],
        kept=counts["used"],
        held_out=len(data.held_out),
        views=sum(group.num_views for group in groups),
        tokens=sum(group.num_tokens for group in groups),
        graded_tokens=sum(group.num_graded for group in groups),
        violations=dict(proof.violations.most_common()),
        examples=proof.examples,
        refused=counts["dropped"],
        cut=counts["cut"],
        changes=counts["changed"],
        unusual=dict(found.counts),
        split=proof.split,
        graded_stop_ids=sorted(found.stop_ids),
        stop_ids=tokenizer.stop_ids,
        stop_tokens=[str(tokenizer.tokenizer.convert_ids_to_tokens(stop)) for stop in tokenizer.stop_ids],
        has_conversations=rows.has_conversations,
        date=tokenizer.identity.date,
        formats=describe_formats(recipe),
        seconds=time.perf_counter() - started,
    )
    certificate.write(folder / "certificate.json")
    data.ledger.write(folder / "ledger.jsonl")
    (folder / "origins.json").write_bytes(orjson.dumps(data.origins.as_list()))
    write_keys(rows, folder)
    seal(folder, {"key": certificate.key})
