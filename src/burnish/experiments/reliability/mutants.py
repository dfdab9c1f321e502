"""F15: our own modules with one thing changed in each mutant; the suite must notice.

    a < b -> a <= b    a + b -> a - b    and -> or    0 -> 1    if x -> if not x    break -> continue

A mutant is imported in a fork in the place of its module, and the fast tests named for the module are run on it.
It is killed by a failing test, an error or a timeout. Nothing on disk is changed.
"""

from __future__ import annotations

import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import burnish
from burnish.experiments.reliability.bench import in_a_child, wait_for
from burnish.experiments.reliability.outcome import Outcome

PATIENCE = 120.0
PACKAGE = Path(burnish.__file__).parent
MODULES: dict[str, tuple[str, ...]] = {
    "burnish.chat.grade": ("tests/chat/test_grade.py", "tests/chat/test_encode.py"),
    "burnish.data.pack": ("tests/data/test_pack.py", "tests/models/test_forward.py"),
    "burnish.losses.cross_entropy": ("tests/losses", "tests/models/test_exactness.py"),
    "burnish.checkpoint.files": ("tests/checkpoint",),
    "burnish.checkpoint.tensors": ("tests/checkpoint",),
    "burnish.training.step": ("tests/training/test_failures.py", "tests/training/test_run.py"),
}
_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}


def mutate_own(place: Path, *, seed: int, trials: int = 300, tests: Path | None = None) -> Outcome:
    """F15: mutants drawn evenly over the modules; `failures` are those that no test killed."""
    outcome = Outcome("F15", "mutants of mask, packing, loss and checkpoint modules", seed)
    rng = random.Random(seed)
    root = tests or PACKAGE.parents[1]
    waiting = {
        name: rng.sample(found, len(found)) for name in MODULES if (found := list(mutants(_source(name))))
    }
    while outcome.trials < trials and any(waiting.values()):
        for name in MODULES:
            if waiting.get(name) and outcome.trials < trials:
                said, source = waiting[name].pop()
                outcome.note(
                    name.removeprefix("burnish."), None if _is_killed(name, source, root, place) else said
                )
    outcome.margin = f"{outcome.trials - len(outcome.failures)} of {outcome.trials} killed"
    return outcome


def _source(name: str) -> str:
    return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Every mutant of a module: what was changed, and the whole source."""
    whole = ast.parse(source)
    nodes = list(ast.walk(whole))
    for number, node in enumerate(nodes):
        for change in _changes(node):
            twin = copy.deepcopy(whole)
            target = list(ast.walk(twin))[number]
            before = ast.unparse(target)
            change(target)
            after = ast.unparse(target)
            if before != after:
                yield (
                    f"line {getattr(target, 'lineno', 0)}: {before[:60]!r} -> {after[:60]!r}",
                    ast.unparse(twin),
                )


def _changes(node: ast.AST) -> Iterator[Any]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARE:
            yield lambda n: n.ops.__setitem__(0, _COMPARE[type(n.ops[0])]())
        case ast.BinOp(op=operator) if type(operator) in _ARITHMETIC:
            yield lambda n: setattr(n, "op", _ARITHMETIC[type(n.op)]())
        case ast.BoolOp():
            yield lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())
        case ast.Constant(value=bool()):
            yield lambda n: setattr(n, "value", not n.value)
        case ast.Constant(value=int()):
            yield lambda n: setattr(n, "value", n.value + 1)
        case ast.If() | ast.IfExp():
            yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
        case ast.UnaryOp(op=ast.Not()):
            yield lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives one module another source: one of ours, with one thing changed."""

    def __init__(self, name: str, source: str) -> None:
        self._name, self._source = name, source

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        """The spec of the one module; of any other, nothing."""
        if name != self._name:
            return None
        origin = str(PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py"))
        return importlib.util.spec_from_loader(name, self, origin=origin)

    def get_source(self, fullname: str) -> str:
        """The mutant."""
        return self._source


def _is_killed(name: str, source: str, root: Path, place: Path) -> bool:
    def job() -> None:
        import pytest

        os.chdir(root)
        for loaded in [key for key in sys.modules if key.split(".")[0] in ("burnish", "tests")]:
            del sys.modules[loaded]
        sys.meta_path.insert(0, _Instead(name, source))
        quick = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
        os._exit(int(pytest.main([*quick, *MODULES[name]])))

    child = in_a_child(job, place / "mutants.log")
    code = wait_for(child, seconds=PATIENCE)
    if code is None:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return code != 0
