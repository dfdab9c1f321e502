"""Which run a launch of several ranks is about: a new one, or, after a restart by torchrun, the one it had begun.

torchrun starts all ranks anew when one is lost (--max-restarts), with the same command line. The first rank leaves the
run's place under the launch's own key beside the runs; ranks that are started again find it there and go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from burnish.errors import UsageError
from burnish.parallel.bounds import mesh_of
from burnish.parallel.launch import Launch, launched
from burnish.parallel.mesh import derive_mesh
from burnish.parallel.ranks import ALONE, POLL, Ranks, meet
from burnish.parallel.watchdog import naming_the_lost
from burnish.recipe.schema import Recipe

SEEN_WITHIN = 10.0
"""Seconds after which a directory that another node has made is taken for one that is not shared."""


@contextmanager
def all_ranks(recipe: Recipe) -> Iterator[Ranks]:
    """This process's place among the ranks it was launched with, for the block; `ALONE` where there are no others."""
    launch = launched()
    if launch.size == 1:
        derive_mesh(1, data_parallel="replicate", context_parallel=recipe.context_parallel)
        yield ALONE
        return
    meeting = meet(launch)
    with naming_the_lost(meeting.watchdog):
        versions = {name: version(name) for name in ("burnish", "torch")}
        meeting.agree({**recipe.model_dump(mode="json"), **versions})
        ranks = meeting.take_places(mesh_of(recipe, launch.size, per_node=launch.local_size))
        yield ranks
        ranks.leave()


def require_shared(run: Path, ranks: Ranks) -> None:
    """UsageError of a rank that does not see the run's directory, which the first one has made."""
    until = time.monotonic() + SEEN_WITHIN
    while not (seen := (run / "resolved.yaml").is_file()) and time.monotonic() < until:
        time.sleep(POLL)  # a network's file system may take its time
    if not ranks.any(not seen) or seen:
        return
    raise UsageError(
        f"{run} is not there, and rank 0 has made it",
        rule="all nodes see output_dir at the same path: every rank reads checkpoints there",
        remedy="put output_dir on a file system that all nodes share, and name it by its whole path",
    )


def begun_before(recipe: Recipe, launch: Launch) -> Path | None:
    """The place that this launch had taken for its run before torchrun started its ranks again; None at the start."""
    marker = _marker(recipe, launch)
    if not launch.restarts:  # what is there is an older launch's, whose process had the number of ours
        forget(recipe, launch)
    return Path(marker.read_text()) if launch.key and marker.is_file() else None


def remember(recipe: Recipe, launch: Launch, run: Path) -> None:
    """Leave word for ranks that are started again, before anything is written into the run."""
    if launch.key:
        _marker(recipe, launch).write_text(str(run.resolve()))


def forget(recipe: Recipe, launch: Launch) -> None:
    """The run is over: nothing is to be found."""
    if launch.key:
        _marker(recipe, launch).unlink(missing_ok=True)


def _marker(recipe: Recipe, launch: Launch) -> Path:
    return Path(recipe.output_dir) / f".launch-{launch.key}"
