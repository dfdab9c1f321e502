"""torchrun in this process, quiet: what ends a rank is said by the ranks themselves, once, and its exit code is ours.

    python -m burnish.parallel.engine --standalone --nproc-per-node=2 -m burnish train recipe.yaml

torchrun by hand does the same, and adds a page about each rank that ended and the way to itself.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Run torchrun's command line; the exit code of the rank that ended first, where one did not end well."""
    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        run.main(list(words))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        sys.stderr.write(
            f"\nrank {rank} was ended from outside by {name}"
            f"{', as the system does when memory runs out' if name == 'SIGKILL' else ''}\n"
        )
        return 1
    except SignalException:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
