"""What a verb prints: JSON lines on stdout for programs, or text for people; errors in three parts.

Names and values that come from data or files are printed as text: no markup is read in them, and control
characters are escaped, so that a file name cannot move the cursor or colour the screen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from burnish.errors import BurnishError


def printable(value: object) -> str:
    r"""Text that is safe on a terminal: `a\x1b[31m` shows as written here, line breaks stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii")
        for char in str(value)
    )


class Output:
    """Where a verb's results go. With `--json`, stdout holds JSON lines and nothing else."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._people = Console(stderr=as_json, highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def emit(self, fields: Mapping[str, Any]) -> None:
        """One line of JSON on stdout; nothing for people, who are told by `say`."""
        if self.as_json:
            line = orjson.dumps(
                fields, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
            )
            sys.stdout.write(line.decode())
            sys.stdout.flush()

    def say(self, text: str = "", *, style: str = "") -> None:
        """One paragraph for people: on stdout, or on stderr beside JSON."""
        self._people.print(Text(printable(text), style=style))

    def warn(self, text: str) -> None:
        """One line on stderr."""
        self._errors.print(Text(printable(text), style="yellow"))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table for people; numbers are the caller's to format."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._people.print(table)

    def fail(self, error: BurnishError) -> int:
        """Print an error's three parts, and return the exit code that goes with it."""
        if self.as_json:
            self.emit(error.as_dict())
            return error.exit_code
        for name, style, part in (
            ("error", "bold red", error.saw),
            ("rule", "bold", error.rule),
            ("remedy", "bold green", error.remedy),
        ):
            self._errors.print(Text.assemble((f"{name:>6}  ", style), printable(part)))
        return error.exit_code


def debug() -> None:
    """From here on, a bug prints its traceback."""
    os.environ["BURNISH_DEBUG"] = "1"
