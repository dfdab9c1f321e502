"""The process: run the command line, turn what goes wrong into words and an exit code.

0 ok   1 a bug, or the system refused   2 usage   3 data   4 out of memory   5 diverged   130 interrupted
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType

import typer

from burnish.cli.app import group
from burnish.cli.output import Output
from burnish.errors import BurnishError, DataError, UsageError, as_error

# typer names only this one class of its usage errors; the class above it covers unknown options and the rest
COMMAND_LINE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

REPORT_TO = "the burnish issue tracker"


def main() -> None:
    """Run `burnish` and leave the process with the exit code."""
    sys.excepthook = explain_bug
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run one command line; every failure that burnish knows is printed, and returned as its exit code."""
    output = Output(as_json="--json" in words)
    try:
        code = group().main(args=list(words) or ["--help"], prog_name="burnish", standalone_mode=False)
    except COMMAND_LINE_ERROR as wrong:
        return output.fail(_usage_error(wrong))
    except (typer.Abort, KeyboardInterrupt):
        output.warn("interrupted")
        return 130
    except Exception as raised:
        error = as_error(raised)
        if error is None:
            raise
        return error.exit_code if _first_rank_says(error) else output.fail(error)
    return code if isinstance(code, int) else 0


def _first_rank_says(error: BurnishError) -> bool:
    """Whether another process of the run prints it: what is wrong with a recipe or its data, all ranks find."""
    return os.environ.get("RANK", "0") != "0" and isinstance(error, UsageError | DataError)


def explain_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception that nobody expected: short, or in full with BURNISH_DEBUG=1."""
    if os.environ.get("BURNISH_DEBUG"):
        sys.__excepthook__(kind, error, trace)
        return
    Output(as_json="--json" in sys.argv).fail(
        BurnishError(
            f"{kind.__name__}: {error}",
            rule="this is a bug in burnish: bad input should have been named before it got here",
            remedy=f"run it again as `burnish --debug ...` and report what it prints to {REPORT_TO}",
        )
    )


def _usage_error(error: Exception) -> UsageError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "burnish"
    message = getattr(error, "format_message", error.__str__)()
    return UsageError(message, rule=f"{command} takes what its help lists", remedy=f"see `{command} --help`")


if __name__ == "__main__":
    main()
