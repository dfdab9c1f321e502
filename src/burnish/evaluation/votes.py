"""Votes on pairs, one JSON line each, appended and never changed: undoing is a line as well.

    {"id":"5f0c..","rater":"ann","vote":"a","first":"b","models":["tuned","base"],"prompt":["Why?"],"answers":[[..],[..]]}
    {"id":"5f0c..","rater":"ann","undo":true}

`a` and `b` are the two models; `first` is the one that was shown first (or on the left), so that a liking for places
can be tested afterwards. A judge votes twice on a pair, once in each order; asked once more, its lines carry `again`.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from burnish.data.files import name_of
from burnish.errors import DataError
from burnish.evaluation.outputs import Pair, read_records

CHOICES = ("a", "b", "tie", "both_bad")
ROUNDING = 1e-3
"""Preferences this far outside 1..2 are rounding of the judge's arithmetic."""
_BEGINNING = b'{"id":'
WON = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
_TURNED = {"a": "b", "b": "a"}


@dataclass(frozen=True, slots=True)
class Vote:
    """One rater's word on one pair; `first` is empty where the answers were not seen in an order.

    `share` is a judge's own share for model `a` (AlpacaEval's 1.93 is 0.93); the choice is then the nearer side.
    """

    pair: Pair
    rater: str
    choice: str
    first: str = ""
    again: int = 0
    share: float | None = None

    @property
    def won(self) -> float:
        """The share of the pair that model `a` won."""
        return WON[self.choice] if self.share is None else self.share

    def turned(self) -> Vote:
        """The same word with the models in the other order."""
        pair = Pair(self.pair.asked, self.pair.models[::-1], self.pair.answers[::-1])
        share = None if self.share is None else 1 - self.share
        choice, first = (_TURNED.get(word, word) for word in (self.choice, self.first))
        return Vote(pair, self.rater, choice, first, self.again, share)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What may be voted once."""
        return self.pair.id, self.rater, self.first, self.again

    def as_dict(self) -> dict[str, Any]:
        """The line in the file."""
        fields = {
            "id": self.pair.id,
            "rater": self.rater,
            "vote": self.choice,
            "first": self.first,
            "models": self.pair.models,
            "prompt": self.pair.asked,
            "answers": self.pair.answers,
        }
        more = {"again": self.again or None, "share": self.share}
        return fields | {key: value for key, value in more.items() if value is not None}


class VoteFile:
    """An append-only file of votes; what was voted stays voted when the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.votes: list[Vote] = read_votes([path]) if path.is_file() else []

    def add(self, vote: Vote) -> None:
        """Append a vote."""
        self._append(vote.as_dict())
        self.votes.append(vote)

    def undo(self, rater: str) -> Vote | None:
        """Take back the rater's last vote; None where there is none."""
        last = next((vote for vote in reversed(self.votes) if vote.rater == rater), None)
        if last is not None:
            self._append({"id": last.pair.id, "rater": rater, "undo": True})
            self.votes.remove(last)
        return last

    def _append(self, fields: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # a line that a kill tore off is ended first, so that it spoils nobody else's
        torn = self.path.is_file() and self.path.stat().st_size and self.path.read_bytes()[-1:] != b"\n"
        with self.path.open("ab") as file:
            file.write((b"\n" if torn else b"") + orjson.dumps(fields) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read_votes(paths: Iterable[Path]) -> list[Vote]:
    """The votes that stand, in the order they were given; AlpacaEval annotations count as one rater's."""
    found: list[Vote] = []
    for path in paths:
        for place, record in read_records_leniently(path):
            if record.get("undo"):
                mine = [v for v in found if (v.pair.id, v.rater) == (record.get("id"), record.get("rater"))]
                if mine:
                    found.remove(mine[-1])
            elif "output_1" in record:
                found.extend(_of_annotation(place, record))
            else:
                found.append(_vote(place, record))
    return found


def read_records_leniently(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The records of a file; in one that `burnish arena` wrote, a line that a kill tore off is no vote."""
    try:
        return list(read_records(path))
    except DataError:
        whole: list[tuple[str, dict[str, Any]]] = []
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            try:
                whole += [(f"{name_of(path)}:{number}", orjson.loads(line))] if line.strip() else []
            except orjson.JSONDecodeError as error:
                if not line.startswith(_BEGINNING):
                    raise DataError(
                        f"{name_of(path)}:{number}: broken JSON: {error}",
                        rule="a file of votes has one JSON object a line",
                        remedy="correct the line, or take it out",
                    ) from None
        return whole


def _vote(place: str, record: dict[str, Any]) -> Vote:
    try:
        one, other = record["answers"]
        pair = Pair(tuple(record["prompt"]), tuple(record["models"]), (tuple(one), tuple(other)))
        vote = Vote(
            pair, str(record["rater"]), record["vote"],
            record.get("first", ""), record.get("again", 0), record.get("share"),
        )  # fmt: skip
        WON[vote.choice]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place}: {error!r}",
            rule=f"a vote has id, rater, vote ({', '.join(CHOICES)}), first, models, prompt, answers",
            remedy="give files that `burnish arena` wrote, or AlpacaEval annotations",
        ) from error
    return vote


def _of_annotation(place: str, record: dict[str, Any]) -> list[Vote]:
    """AlpacaEval's: 1 = output_1, the reference; 2 = output_2, the model; 0 or 1.5 = a draw; between, a share."""
    preference = record.get("preference")
    if preference is None:
        return []
    try:
        pair = Pair(
            (str(record["instruction"]),),
            (str(record.get("generator_2", "output_2")), str(record.get("generator_1", "output_1"))),
            ((str(record["output_2"]),), (str(record["output_1"]),)),
        )
        value = float(preference) or 1.5
        if not (math.isnan(value) or 1 - ROUNDING <= value <= 2 + ROUNDING):
            raise ValueError(f"preference {preference}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place}: {error!r}",
            rule="an annotation has instruction, output_1, output_2 and a preference of 1 to 2, 0 or none",
            remedy="correct the record, or leave it out",
        ) from error
    if math.isnan(value):
        return []
    choice = "tie" if value == 1.5 else "a" if value > 1.5 else "b"
    share = min(1.0, max(0.0, value - 1))
    return [Vote(pair, str(record.get("annotator", "annotations")), choice, share=share)]


def one_way_round(votes: Iterable[Vote]) -> list[Vote]:
    """Votes with every two models in the order in which they were first met: some files name them the other way."""
    met: set[tuple[str, str]] = set()
    found = []
    for vote in votes:
        turn = vote.pair.models not in met and vote.pair.models[::-1] in met
        found.append(vote.turned() if turn else vote)
        met.add(found[-1].pair.models)
    return found


def by_rater(votes: Iterable[Vote]) -> dict[tuple[str, str], list[Vote]]:
    """Votes by (pair, rater), repeats left out.

    A rater that saw any pair in both orders is a judge, and counts where it was read in both: one order alone would
    count its liking for a place. A pair that stands twice in a file is no second order.
    """
    found: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in votes:
        if not vote.again:
            found[vote.pair.id, vote.rater].append(vote)
    orders = {key: len({vote.first for vote in given}) for key, given in found.items()}
    judges = {rater for (_, rater), seen in orders.items() if seen > 1}
    return {key: given for key, given in found.items() if key[1] not in judges or orders[key] > 1}


def preference_pairs(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """What preference tuning eats: each pair that most votes decided, as messages, chosen and rejected.

    Both bad, ties and split votes teach nothing, and are left out. With one turn the prompt stands by itself; with
    more the whole talks are compared, for they differ from the first answer on.
    """
    by_pair: dict[str, list[Vote]] = defaultdict(list)
    for (pair_id, _), given in by_rater(one_way_round(votes)).items():
        by_pair[pair_id] += given
    rows = []
    for given in by_pair.values():
        won = sum(vote.won for vote in given) / len(given)
        if won == 0.5 or sum(vote.choice == "both_bad" for vote in given) * 2 > len(given):
            continue
        pair, best = given[0].pair, 0 if won > 0.5 else 1
        chosen, rejected = (_messages(pair.asked, pair.answers[place]) for place in (best, 1 - best))
        row: dict[str, Any] = {"chosen": chosen, "rejected": rejected}
        if len(pair.asked) == 1:
            row = {"prompt": chosen[:1], "chosen": chosen[1:], "rejected": rejected[1:]}
        names = {"chosen_model": pair.models[best], "rejected_model": pair.models[1 - best]}
        rows.append({**row, **names, "votes": len(given), "margin": abs(2 * won - 1)})
    return rows


def _messages(asked: Sequence[str], answered: Sequence[str]) -> list[dict[str, str]]:
    messages = []
    for question, answer in zip(asked, answered, strict=True):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages
