"""How every `python -m burnish.experiments.NAME` ends: as the command line does, with words and an exit code.

A study's file ends by calling `enter(main)` where it is the program.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from burnish.errors import as_error


def enter(main: Callable[[], object]) -> None:
    """Run a study and leave the process; what burnish or the system refuses is said in words, not as a traceback.

    A bug keeps its traceback: whoever runs studies reads it.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as raised:
        error = as_error(raised)
        if error is None:
            raise
        for name, part in (("error", error.saw), ("rule", error.rule), ("remedy", error.remedy)):
            print(f"{name:>6}  {part}", file=sys.stderr)
        sys.exit(error.exit_code)
