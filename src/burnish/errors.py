"""Every error burnish raises on purpose, and the exit code each one ends the process with.

    BurnishError             1
    +-- UsageError           2   the recipe or the command line
    +-- DataError            3   a row, a file, a template, a model directory
    +-- MemoryExhausted      4   the device or the host ran out of memory
    +-- Diverged             5   a loss or a gradient is no longer a number

An error has three parts: what was seen, the rule it breaks, the command or edit that mends it.

    raise DataError(
        f"data/train.jsonl:17: role 'assitant'",
        rule="a message's role is one of system, user, assistant, tool",
        remedy="correct the line, or train without it: on_bad_row: drop",
    )
"""

from __future__ import annotations

from typing import Any


class BurnishError(Exception):
    """What was seen (value, file:line, row or step), the rule, and what mends it."""

    exit_code = 1

    def __init__(self, saw: str, *, rule: str, remedy: str) -> None:
        super().__init__(saw)
        self.saw = saw
        self.rule = rule
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its parts: what a child process raises, its parent must be able to read."""
        return _made_again, (type(self), self.saw, self.rule, self.remedy)

    def __str__(self) -> str:
        return f"{self.saw}\n  rule:   {self.rule}\n  remedy: {self.remedy}"

    def as_dict(self) -> dict[str, str | int]:
        """The error as `--json` prints it."""
        return {
            "error": type(self).__name__,
            "saw": self.saw,
            "rule": self.rule,
            "remedy": self.remedy,
            "exit_code": self.exit_code,
        }


def _made_again(kind: type[BurnishError], saw: str, rule: str, remedy: str) -> BurnishError:
    return kind(saw, rule=rule, remedy=remedy)


class UsageError(BurnishError):
    """The recipe or the command line asks for something that cannot be."""

    exit_code = 2


class DataError(BurnishError):
    """A row, a file, a template or a model directory is not what it must be."""

    exit_code = 3


class MemoryExhausted(BurnishError):
    """The device or the host ran out of memory."""

    exit_code = 4


class Diverged(BurnishError):
    """A loss or a gradient is no longer a finite number."""

    exit_code = 5


def as_error(raised: BaseException) -> BurnishError | None:
    """What the system or Python refused, in our three parts; an error of ours as it is; None for a bug."""
    if isinstance(raised, BurnishError):
        return raised
    if isinstance(raised, MemoryError):
        return MemoryExhausted(
            "the host has no more memory",
            rule="model, optimiser state and batch must fit",
            remedy="lower micro_batch_size or max_length, say adapter: lora, or take a smaller model",
        )
    if isinstance(raised, OSError):
        place = f"{raised.filename}: " if raised.filename else ""
        return BurnishError(
            f"{place}{raised.strerror or raised}",
            rule="the operating system refused it",
            remedy="check the path, its permissions and the free space (burnish doctor)",
        )
    return None
