"""Which tests reach which lines of a module, and how long each takes: all that a mutant of a line need be shown.

Both sides run in forks of a process that has imported the large libraries and computed nothing.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import peft  # noqa: F401  imported here, once, and not in each fork
import pytest
import transformers  # noqa: F401

from burnish.experiments.reliability.bench import in_a_child, wait_for

MEMORY = 6 << 30
"""What a mutant may take before it counts as killed: a loop without end fills the machine otherwise."""
QUICK = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow and not gpu"]


@dataclass(frozen=True, slots=True)
class Covering:
    """For each test its seconds and the lines of the module that it ran."""

    seconds: dict[str, float]
    lines: dict[str, frozenset[int]]

    def of(self, lines: Sequence[int]) -> list[str]:
        """The tests that run one of the lines, the shortest first; all, where only an import runs them."""
        wanted = frozenset(lines)
        found = [test for test, ran in self.lines.items() if ran & wanted]
        reached = frozenset[int]().union(*self.lines.values())
        return sorted(found if reached & wanted else self.seconds, key=self.seconds.__getitem__)


class _Watch:
    """Writes down what each test runs of one file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._ran: set[int] = set()
        self.said: dict[str, tuple[float, list[int]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace one test with its fixtures, in every thread."""
        self._ran = set()
        started = time.perf_counter()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.said[item.nodeid] = (time.perf_counter() - started, sorted(self._ran))

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename == self._path else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._ran.add(frame.f_lineno)
        return self._line


class _Only:
    """Runs the tests that were chosen, in the order given."""

    def __init__(self, chosen: Sequence[str]) -> None:
        self._place = {test: place for place, test in enumerate(chosen)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the others out."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )


def find_covering(path: Path, tests: Sequence[str], root: Path, place: Path) -> Covering:
    """Run the tests of a module as it is, and watch."""
    told = place / "covering.json"

    def job() -> None:
        watch = _Watch(path)
        code = _run_tests(root, tests, watch)
        told.write_text(json.dumps(watch.said))
        os._exit(code)

    code = wait_for(in_a_child(job, place / "covering.log"), seconds=900)
    if code != 0:
        raise AssertionError(
            f"the tests of {path.name} end with {code} as they are: {place / 'covering.log'}"
        )
    said = json.loads(told.read_text())
    return Covering(
        {test: seconds for test, (seconds, _) in said.items()},
        {test: frozenset(lines) for test, (_, lines) in said.items()},
    )


def passes(
    chosen: Sequence[str], covering: Covering, root: Path, log: Path, before: Callable[[], None]
) -> bool:
    """Whether the chosen tests pass in a fork in which `before` was called; False also for one without an end."""

    def job() -> None:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        before()
        files = list(dict.fromkeys(test.split("::")[0] for test in chosen))
        os._exit(_run_tests(root, ["-x", *files], _Only(chosen)))

    patience = 30.0 + 5 * sum(covering.seconds[test] for test in chosen)
    for _ in range(2):  # a machine that stood still for a while is not the mutant's fault
        child = in_a_child(job, log)
        code = wait_for(child, seconds=patience)
        if code is not None:
            return code == 0
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return False


def _run_tests(root: Path, arguments: Sequence[str], plugin: object) -> int:
    """pytest in this process, with everything of ours imported anew and no time spent on smaller examples."""
    os.chdir(root)
    for loaded in [key for key in sys.modules if key.split(".")[0] in ("burnish", "tests")]:
        del sys.modules[loaded]
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutants", max_examples=40, derandomize=True, database=None, deadline=None, phases=phases
    )
    hypothesis.settings.load_profile("mutants")
    return int(pytest.main([*QUICK, *arguments], plugins=[plugin]))
