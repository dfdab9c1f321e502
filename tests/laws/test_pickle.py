"""No file is ever unpickled, and nothing that is read is run: the syntax tree of every module says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "burnish"
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "pandas"}
CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.save",
    "numpy.load",
    "np.load",
    "os.system",
    "os.popen",
    "yaml.load",
}
CALLS |= {"torch.hub.load", "yaml.unsafe_load", "yaml.full_load"}
# Requests that this process pickles itself and hands to a child that it started: no file, and nothing that was read
# from one is unpickled. Answers, which come from where foreign templates run, are JSON.
REQUESTS_TO_CHILDREN = {"chat/cell.py", "chat/child.py", "data/workers.py"}


def offences(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in MODULES:
            yield node.module
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS:
                yield called
            for keyword in node.keywords:
                is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and is_true:
                    yield f"{keyword.arg}=True"


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), offence)
        for path in PACKAGE.rglob("*.py")
        for offence in offences(path.read_text())
    }
    assert {place for place, _ in found} <= REQUESTS_TO_CHILDREN, found
    assert {offence for _, offence in found} <= {"pickle"}, found


def test_the_law_sees_each_way_of_breaking_it() -> None:
    planted = """
import pickle
from joblib import load
torch.load("x")
np.load("x", allow_pickle=True)
subprocess.run("x", shell=True)
AutoModel.from_pretrained("x", trust_remote_code=True)
eval("1")
"""
    assert len(set(offences(planted))) == 8
