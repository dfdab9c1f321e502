"""How this process was launched, read from the environment, and `--processes N`, which launches N with torchrun.

Nothing here imports torch.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnish.errors import UsageError
from burnish.parallel.bounds import mesh_of
from burnish.recipe.schema import Recipe

STOPS_WITHIN = 600
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What the launcher says; `key` names one launch and stays over torchrun's restarts of its processes.

    An agent (torchrun has one) is a process that outlives the ranks and holds their store; without one rank 0 does.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: str = "0"
    restarts: int = 0
    key: str = ""
    has_agent: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


def launched(environment: Mapping[str, str] = os.environ) -> Launch:
    """This process's launch; one process where nothing is said."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if "RANK" not in environment:
        return Launch()
    if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        raise UsageError(
            f"WORLD_SIZE={size} is in the environment, and MASTER_ADDR or MASTER_PORT is not",
            rule="ranks find each other at MASTER_ADDR:MASTER_PORT",
            remedy="start them with torchrun, or unset RANK and WORLD_SIZE for a run of one process",
        )
    said = environment.get("TORCHELASTIC_RUN_ID", "none")
    return Launch(
        rank=int(environment["RANK"]),
        size=size,
        local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
        local_size=int(environment.get("LOCAL_WORLD_SIZE", size)),
        node=environment.get("GROUP_RANK", "0"),
        restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
        key=said if said != "none" else f"{socket.gethostname()}-{os.getppid()}",
        has_agent=environment.get("TORCHELASTIC_USE_AGENT_STORE") == str(True),
    )


def torchrun(words: Sequence[str], *, processes: int, restarts: int = 0) -> list[str]:
    """The command that runs `burnish WORDS` in so many processes on this machine."""
    engine = [
        "burnish.parallel.engine",
        "--standalone",
        f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}",
    ]
    return [sys.executable, "-m", *engine, "-m", "burnish", *words]


def become_many(processes: int, restarts: int, recipe: Recipe) -> None:
    """Replace this process by torchrun and the same command line in `processes` ranks; it does not return.

    UsageError, before anything is started, where the recipe's values do not go into so many.
    """
    if "RANK" in os.environ:
        raise UsageError(
            f"--processes {processes} in rank {os.environ['RANK']} of a launch",
            rule="processes are started once: by a launcher, or by --processes",
            remedy="leave --processes out under torchrun, srun and their like",
        )
    mesh_of(recipe, processes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    # What torchrun gives ranks to end in: who is asked to stop finishes the pack in hand, and saves.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(STOPS_WITHIN))
    command = torchrun(
        without_options(sys.argv[1:], ("--processes", "--restarts")), processes=processes, restarts=restarts
    )
    sys.stdout.flush()
    os.execv(command[0], command)


def without_options(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without these options and their values, written with a space or with `=`."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in options)):
            kept.append(word)
    return kept
