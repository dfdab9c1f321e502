"""A run's sharpening.jsonl read back: what training did to single tokens, in numbers and in words.

group     tokens   p before   p after   base's first choice   among its first five
content      812       .412      .871                 58.1%                  81.0%
stop          32       .001      .993                  0.0%                   3.1%
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import DataError
from burnish.training.directory import RunDirectory

FILE = "sharpening.jsonl"
GROUPS = ("all", "content", "format", "stop")


@dataclass(frozen=True, slots=True)
class Group:
    """What one kind of token came to: mean p under the base and by now, and where the base had put them."""

    name: str
    n: int
    base_p: float
    p: float
    base_top1: float
    base_top5: float


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One row as it is drawn: its graded tokens, and their probabilities at each look, the base's first."""

    row: int
    place: str
    prompt: str
    tokens: tuple[str, ...]
    groups: tuple[str, ...]
    base_rank: tuple[int, ...]
    looks: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Sharpened:
    """All looks of a run: the groups at the last one, and the rows that were kept in detail."""

    steps: tuple[int, ...]
    groups: tuple[Group, ...]
    rows: tuple[HeatRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it: the figures at the last look."""
        return {
            "steps": list(self.steps),
            "groups": {
                group.name: {
                    "n": group.n,
                    "base_mean_p": group.base_p,
                    "mean_p": group.p,
                    "base_top1": group.base_top1,
                    "base_top5": group.base_top5,
                }
                for group in self.groups
            },
        }

    def in_words(self) -> str:
        """How much was there already."""
        told = {group.name: group for group in self.groups}
        group = told.get("content") or self.groups[0]
        return (
            f"{group.base_top1:.0%} of {group.name} tokens were the base's first choice already, "
            f"{group.base_top5:.0%} among its first five: that much training had only to bring out"
        )


def read_sharpening(run: Path) -> Sharpened:
    """The looks of a run; DataError where there are none, or where they are not what burnish wrote."""
    lines = RunDirectory(run).lines(FILE)
    if not lines:
        raise DataError(
            f"{run / FILE}: no look at any token",
            rule="a run with held-out rows and sharpening_rows above 0 looks at each evaluation",
            remedy="train with val_set_size: 0.05 (or val_datasets), and sharpening_rows: 32",
        )
    try:
        groups = [_group(name, lines[-1]["groups"][name]) for name in GROUPS if name in lines[-1]["groups"]]
        rows = [_row(number, lines) for number in range(len(lines[0]["rows"]))]
        return Sharpened(tuple(int(line["step"]) for line in lines), tuple(groups), tuple(rows))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{run / FILE}: {type(error).__name__}: {error}",
            rule="each line holds step, groups and rows, as burnish wrote them",
            remedy="restore the file from a copy; it is written while training",
        ) from error


def _group(name: str, said: Mapping[str, Any]) -> Group:
    return Group(
        name,
        int(said["n"]),
        *(float(said[key]) for key in ("base_mean_p", "mean_p", "base_top1", "base_top5")),
    )


def _row(number: int, lines: Sequence[Mapping[str, Any]]) -> HeatRow:
    first = lines[0]["rows"][number]
    tokens = tuple(str(token) for token in first["tokens"])
    looks = [("base", _numbers(first["base_p"], len(tokens)))]
    looks += [
        (f"step {int(line['step'])}", _numbers(line["rows"][number]["p"], len(tokens)))
        for line in lines
        if line["step"] > 0
    ]
    return HeatRow(
        int(first["row"]),
        str(first.get("place", "")),
        str(first["prompt"]),
        tokens,
        tuple(str(group) for group in first["group"]),
        tuple(int(rank) for rank in first["base_rank"]),
        tuple(looks),
    )


def _numbers(said: Sequence[Any], length: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in said)
    if len(numbers) != length:
        raise ValueError(f"{len(numbers)} probabilities for {length} tokens")
    return numbers
