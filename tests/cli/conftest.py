from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from burnish.__main__ import run


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Burnish = Callable[..., Ran]


@pytest.fixture
def burnish(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Burnish:
    """Run one command line in this process."""
    monkeypatch.setenv("COLUMNS", "120")

    def run_words(*words: str) -> Ran:
        code = run(words)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run_words
