"""F15: our own modules with one thing changed in each mutant; the suite must notice.

    a < b -> a <= b    a + b -> a - b    and -> or    0 -> 1    if x -> if not x    break -> continue

A mutant is imported in a fork in the place of its module, and those fast tests named for the module are run on it
that reach the changed statement, the shortest first. It is killed by a failing test, an error, too much memory or
too much time. No source on disk is changed. `equivalent` has those that compute the same, and why.

What became of each is kept in build/mutants.jsonl, so that a campaign can be run in pieces, and only the living are
tried again once a test was written for them; delete the file where tests were taken away.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.abc
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import burnish
from burnish.experiments.reliability.covering import Covering, find_covering, passes
from burnish.experiments.reliability.equivalent import EQUIVALENT
from burnish.experiments.reliability.outcome import Outcome

PACKAGE = Path(burnish.__file__).parent
KEPT = Path("build/mutants.jsonl")
_VALUES = "tests/laws/test_values.py"
MODULES: dict[str, tuple[str, ...]] = {
    "burnish.chat.grade": (
        _VALUES, "tests/chat/test_grade.py", "tests/chat/test_encode.py", "tests/chat/test_turns.py",
        "tests/chat/test_reasoning.py",
    ),
    "burnish.data.pack": (_VALUES, "tests/data/test_pack.py"),
    "burnish.losses.cross_entropy": (_VALUES, "tests/losses"),
    "burnish.checkpoint.files": (_VALUES, "tests/checkpoint"),
    "burnish.checkpoint.tensors": ("tests/checkpoint",),
    "burnish.training.step": (
        "tests/training/test_step.py", "tests/training/test_failures.py",
    ),
}  # fmt: skip
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


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one thing changed: what, in which function, in which statement's lines, and the whole source."""

    said: str
    lines: tuple[int, ...]
    source: str

    @property
    def sha256(self) -> str:
        """Names the mutant as long as nothing else of its module changes."""
        return hashlib.sha256(self.source.encode()).hexdigest()


def mutate_own(
    place: Path, *, seed: int, trials: int = 300, tests: Path | None = None, kept: Path = KEPT
) -> Outcome:
    """F15: mutants drawn evenly over the modules; `failures` are those that no test killed. `kept` has the killed."""
    outcome = Outcome("F15", "mutants of mask, packing, loss and checkpoint modules", seed)
    rng = random.Random(seed)
    root = tests or PACKAGE.parents[1]
    waiting: dict[str, list[Mutant]] = {}
    for name in MODULES:
        spared = EQUIVALENT.get(name, {})
        tried = [mutant for mutant in mutants(_source(name)) if mutant.said not in spared]
        waiting[name] = rng.sample(tried, len(tried))
    coverings: dict[str, Covering] = {}
    killed = (
        {json.loads(line)["sha256"] for line in kept.read_text().splitlines()} if kept.exists() else set()
    )
    while outcome.trials < trials and any(waiting.values()):
        for name in MODULES:
            if not waiting[name] or outcome.trials >= trials:
                continue
            mutant = waiting[name].pop()
            if mutant.sha256 not in killed:
                if name not in coverings:
                    coverings[name] = find_covering(_path(name), MODULES[name], root, place)
                is_killed = _is_killed(name, mutant, coverings[name], root, place)
                killed |= {mutant.sha256} if is_killed else set()
                _keep(kept, name, mutant, killed=is_killed)
            lives = mutant.sha256 not in killed
            outcome.note(name.removeprefix("burnish."), mutant.said if lives else None)
    spared_all = sum(map(len, EQUIVALENT.values()))
    dead = outcome.trials - len(outcome.failures)
    outcome.margin = f"{dead} of {outcome.trials} killed; {spared_all} that compute the same were left out"
    return outcome


def _keep(kept: Path, name: str, mutant: Mutant, *, killed: bool) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file:
        file.write(
            json.dumps({"module": name, "said": mutant.said, "killed": killed, "sha256": mutant.sha256})
            + "\n"
        )


def _path(name: str) -> Path:
    return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")


def _source(name: str) -> str:
    return _path(name).read_text(encoding="utf-8")


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    whole = ast.parse(source)
    places = {id(node): place for node, place in _places(whole)}
    for number, node in enumerate(ast.walk(whole)):
        for change in _changes(node):
            twin = copy.deepcopy(whole)
            target = next(found for at, found in enumerate(ast.walk(twin)) if at == number)
            before = ast.unparse(target)
            change(target)
            after = ast.unparse(target)
            if before != after:
                function, lines = places[id(node)]
                yield Mutant(f"{function}: {_short(before)} -> {_short(after)}", lines, ast.unparse(twin))


def _short(code: str) -> str:
    return code.splitlines()[0][:90]


def _places(
    node: ast.AST, function: str = "module", lines: tuple[int, ...] = ()
) -> Iterator[tuple[ast.AST, tuple[str, tuple[int, ...]]]]:
    """Each node with the function that it is in and the lines of its statement, a block's head being one."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = node.name if function == "module" else f"{function}.{node.name}"
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        lines = tuple(range(node.lineno, max(node.lineno, last) + 1))
    yield node, (function, lines)
    for child in ast.iter_child_nodes(node):
        yield from _places(child, function, lines)


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


def _is_killed(name: str, mutant: Mutant, covering: Covering, root: Path, place: Path) -> bool:
    chosen = covering.of(mutant.lines)
    instead = _Instead(name, mutant.source)
    return not passes(chosen, covering, root, place / "mutants.log", lambda: sys.meta_path.insert(0, instead))
