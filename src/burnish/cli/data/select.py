"""`burnish data select DATA N --out FILE`: the N rows to train on, and why each is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal

import typer

from burnish.cli.data.options import (
    AsJson,
    Format,
    LedgerPath,
    Out,
    Overwrite,
    Split,
    inputs_of,
    run,
    tell,
)
from burnish.cli.output import Output
from burnish.curation.flow import Job, Verdict, removed
from burnish.curation.items import Input, Item, read_items
from burnish.types import Rejected


@dataclass(frozen=True)
class Chosen:
    """Keeps the rows that were chosen, each with its reason."""

    reasons: dict[int, str]

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict per row."""
        return [
            Verdict(True, "selected", self.reasons[item.row.index])
            if item.row.index in self.reasons
            else removed("not selected")
            for item in items
        ]


def command(
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="Files, folders, globs, hub names.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many rows to keep.")],
    out: Out,
    scores: Annotated[Path | None, typer.Option(help="File of scores from `burnish data score`.")] = None,
    score: Annotated[
        str | None, typer.Option(help="The score that says how good a row is; -NAME where less is better.")
    ] = None,
    method: Annotated[
        Literal["k-centre", "facility"],
        typer.Option(help="k-centre spreads the rows out; facility covers what is common."),
    ] = "facility",
    quality_weight: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="0: diversity alone; 1: quality alone.")
    ] = 0.5,
    keep_best: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Look only at so large a part of each source, the best by score."
        ),
    ] = 1.0,
    embeddings: Annotated[
        str | None, typer.Option(help="Compare prompts by this model's hidden states (default: TF-IDF).")
    ] = None,
    equal: Annotated[
        bool, typer.Option("--equal", help="The same number from every source, not by size.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draws of `facility`.")] = 0,
    format: Format = "auto",
    split: Split = "train",
    ledger: LedgerPath = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Select rows by quality and diversity; the ledger says of every row why it is in."""
    output = Output(as_json=as_json)
    inputs = inputs_of(data, format, split)
    reasons = _choose(
        inputs, number, scores=scores, score=score, method=method, quality_weight=quality_weight,
        keep_best=keep_best, embeddings=embeddings, equal=equal, seed=seed,
    )  # fmt: skip
    digest = blake2b(repr(sorted(reasons.items())).encode(), digest_size=16).hexdigest()
    job = Job("select", inputs, out, {"chosen": digest}, ledger, overwrite)
    tell(run(job, Chosen(reasons)), output, method=method, quality=score, seed=seed)


def _choose(
    inputs: tuple[Input, ...],
    number: int,
    *,
    scores: Path | None,
    score: str | None,
    method: Literal["k-centre", "facility"],
    quality_weight: float,
    keep_best: float,
    embeddings: str | None,
    equal: bool,
    seed: int,
) -> dict[int, str]:
    """The chosen rows by their numbers, with the reason in words; rows of equal content are looked at once."""
    from burnish.curation.score import exchange
    from burnish.curation.select import select, tf_idf

    quality_of = _qualities(scores, score)
    items: dict[str, tuple[int, str, str]] = {}
    texts: list[str] = []
    for item in read_items(inputs):
        if isinstance(item, Rejected) or item.key in items:
            continue
        pair = exchange(item.row.content)
        said = str(pair[0][-1]["content"]) if pair and pair[0] else str(getattr(item.row.content, "text", ""))
        items[item.key] = (item.row.index, str(item.row.origin), inputs[item.row.source].path)
        texts.append(said)
    if embeddings is None:
        points = tf_idf(texts)
    else:
        from burnish.evaluation.embeddings import embed
        from burnish.parallel.runtime import prepare_process

        prepare_process()
        points = embed(texts, embeddings)
    rows = list(items.values())
    chosen = select(
        points, number, quality=[quality_of.get(key) for key in items] if score else None,
        sources=[source for _, _, source in rows], method=method, quality_weight=quality_weight,
        keep_best=keep_best, equal=equal, seed=seed,
    )  # fmt: skip
    return {rows[one.index][0]: one.why(lambda index: rows[index][1]) for one in chosen}


def _qualities(scores: Path | None, score: str | None) -> dict[str, float]:
    """The score of each row by key, the sign turned where less is better; empty where none was named."""
    from burnish.curation.score import read_scores
    from burnish.errors import UsageError

    if (scores is None) != (score is None):
        raise UsageError(
            f"--scores {scores} with --score {score}",
            rule="quality has a file of scores and the name of one of them",
            remedy="say both, for example --scores s.jsonl --score ifd; or neither, for diversity alone",
        )
    if scores is None or score is None:
        return {}
    sign = -1.0 if score.startswith("-") else 1.0
    return {key: sign * value for key, value in read_scores(scores, score.removeprefix("-")).items()}
