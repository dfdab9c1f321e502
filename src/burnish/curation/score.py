"""Scores of rows in a file beside the data, keyed by what the rows say: shuffling, splitting and filtering keep them.

    {"key":"8f1c...","scorer":"model:marble","values":{"nll":2.31,"ifd":0.87,"solved":0.0}}

A scorer is asked once per content; what lies there already is not computed, and not paid for, again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from burnish.curation.answers import NoReply, Reply, Teacher
from burnish.curation.items import Item
from burnish.curation.lines import LineFile, read_lines, spoiled
from burnish.curation.verdicts import grade, judge_ask
from burnish.errors import DataError, UsageError
from burnish.types import Completion, Content, Conversation, Message

CHUNK = 64
Values = dict[str, float | None]


class Scorer(Protocol):
    """Whoever puts numbers on rows."""

    @property
    def name(self) -> str:
        """Who that is, down to the model: the same name means the same numbers."""

    @property
    def values(self) -> tuple[str, ...]:
        """The names of its numbers."""

    def score(self, items: Sequence[Item]) -> list[Values | None]:
        """The numbers of each row; None in place of one that does not apply, and of all where it was not asked."""


@dataclass(slots=True)
class Scored:
    """What a run of scoring did."""

    rows: int = 0
    computed: int = 0
    kept: int = 0
    unscored: int = 0


class ScoreFile:
    """The side file, open in one process; used as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self._known = {(line["scorer"], line["key"]) for line in _scores(path)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def has(self, scorer: str, key: str) -> bool:
        """Whether a row has been scored by it."""
        return (scorer, key) in self._known

    def put(self, scorer: str, key: str, values: Values) -> None:
        """Keep a row's numbers."""
        self._file.append({"key": key, "scorer": scorer, "values": values})
        self._known.add((scorer, key))


def score_items(
    items: Iterable[Item],
    scorer: Scorer,
    file: ScoreFile,
    *,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Scored:
    """Score what the file does not hold yet, a chunk at a time."""
    done = Scored()
    waiting: dict[str, Item] = {}

    def finish() -> None:
        for (key, _), values in zip(
            waiting.items(), scorer.score(list(waiting.values())) if waiting else [], strict=True
        ):
            if values is None:
                done.unscored += 1
            else:
                file.put(scorer.name, key, values)
                done.computed += 1
        waiting.clear()
        progress(done.rows, None)

    for item in items:
        done.rows += 1
        if file.has(scorer.name, item.key) or item.key in waiting:
            done.kept += 1
            continue
        waiting[item.key] = item
        if len(waiting) == CHUNK:
            finish()
    finish()
    return done


def read_scores(path: Path, name: str) -> dict[str, float]:
    """The numbers called `name`, by row key; `SCORER/name` where several scorers have one of that name."""
    if not path.is_file():
        raise DataError(
            f"{path}: no such file",
            rule="--scores names a file that `burnish data score` wrote",
            remedy="burnish data score DATA --scores FILE",
        )
    found: dict[str, dict[str, float]] = {}
    known: set[str] = set()
    for line in _scores(path):
        for value_name, value in line["values"].items():
            known.add(value_name)
            if name in (value_name, f"{line['scorer']}/{value_name}") and value is not None:
                found.setdefault(line["scorer"], {})[line["key"]] = float(value)
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise UsageError(
            f"{path}: no score called {name!r}", rule=f"the file holds {', '.join(sorted(known)) or 'none'}",
            remedy="name one of these, or score the rows first: burnish data score",
        )  # fmt: skip
    raise UsageError(
        f"{path}: {len(found)} scorers have a score called {name!r}", rule="a score is named so that it is one",
        remedy=f"say {' or '.join(f'{scorer}/{name}' for scorer in sorted(found))}",
    )  # fmt: skip


def exchange(content: Content) -> tuple[tuple[Message, ...], str] | None:
    """What was asked, and the last answer; None for plain text."""
    match content:
        case Conversation(messages=messages):
            last = max(k for k, message in enumerate(messages) if message["role"] == "assistant")
            return tuple(messages[:last]), str(messages[last]["content"])
        case Completion(prompt=prompt, completion=completion):
            return ({"role": "user", "content": prompt},), completion
        case _:
            return None


@dataclass(frozen=True)
class JudgeScorer:
    """A judge's number from 1 to 10 for each row's last answer."""

    judge: Teacher
    values: tuple[str, ...] = ("judge",)
    lost: list[NoReply] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`judge:MODEL@PLACE`."""
        return f"judge:{self.judge.name}@{self.judge.place}"

    def score(self, items: Sequence[Item]) -> list[Values | None]:
        """None for a row that the judge was not asked about, or did not answer."""
        found = [exchange(item.row.content) for item in items]
        asks = (judge_ask(*pair) for pair in found if pair is not None)
        replies = self.judge.ask_all(asks)
        scores: list[Values | None] = []
        for pair in found:
            if pair is None:
                scores.append({"judge": None})
                continue
            reply = next(replies)
            if isinstance(reply, Reply):
                scores.append({"judge": grade(reply.text)})
            else:
                self.lost.append(reply)
                scores.append(None)
        return scores


def _scores(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of `score`, and of others: there the numbers may stand beside the key, and nobody says whose they are."""
    for place, fields in read_lines(path):
        beside = {name: value for name, value in fields.items() if name not in ("key", "scorer")}
        values = fields.get("values", beside)
        if "key" not in fields or not values:
            raise spoiled(place, KeyError("values" if "key" in fields else "key"))
        yield {"key": fields["key"], "scorer": fields.get("scorer", ""), "values": values}
