"""The table of verbs, and what a failure looks like from outside."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

import pytest

from burnish import __main__
from burnish.cli import app
from burnish.errors import DataError, Diverged, MemoryExhausted

ERROR_PARTS = {"error", "saw", "rule", "remedy", "exit_code"}


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Add a verb `try` that runs a given function."""

    def add(function: Any) -> None:
        module = ModuleType("burnish.cli.try")
        module.command = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "burnish.cli.try", module)
        monkeypatch.setitem(app.VERBS, "try", app.Verb("Start", "Try."))

    return add


@pytest.mark.parametrize("name", app.VERBS)
def test_every_listed_verb_is_there_and_explains_itself(burnish: Any, name: str) -> None:
    assert importlib.util.find_spec(f"burnish.cli.{name}"), f"{name} is listed, but has no module"
    ran = burnish(name, "--help")
    assert ran.code == 0
    assert f"burnish {name}" in ran.out


def test_help_lists_every_verb_with_its_summary(burnish: Any) -> None:
    for words in ((), ("--help",)):
        ran = burnish(*words)
        assert ran.code == 0
        for name, verb in app.VERBS.items():
            assert name in ran.out
            assert verb.summary[:40] in ran.out


def test_a_listed_verb_without_a_module_does_not_break_help(
    burnish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.VERBS, "ghost", app.Verb("Use", "Not there."))
    assert "ghost" in burnish("--help").out


def test_a_misspelt_verb_is_answered(burnish: Any) -> None:
    ran = burnish("rnus")
    assert ran.code == 2
    assert "burnish runs" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize("words", [("runs", "--nope"), ("--nope",), ("runs", "a", "b"), ("nope",)])
def test_a_wrong_command_line_ends_with_2_and_one_json_line(burnish: Any, words: tuple[str, ...]) -> None:
    assert burnish(*words).code == 2
    ran = burnish(*words, "--json")
    assert ran.code == 2
    assert json.loads(ran.out).keys() == ERROR_PARTS
    assert ran.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("a.jsonl:3: 'x'", rule="r", remedy="m"), 3),
        (MemoryExhausted("s", rule="r", remedy="m"), 4),
        (Diverged("s", rule="r", remedy="m"), 5),
        (MemoryError(), 4),
        (PermissionError(13, "Permission denied", "runs/x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_failure_has_its_exit_code(burnish: Any, verb: Any, error: BaseException, code: int) -> None:
    def fail() -> None:
        raise error

    verb(fail)
    ran = burnish("try")
    assert ran.code == code
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_an_error_shows_its_three_parts_and_escapes_what_came_from_data(burnish: Any, verb: Any) -> None:
    def fail() -> None:
        raise DataError("a.jsonl:3: role '[red]\x1b[31m\x07'", rule="the rule", remedy="the remedy")

    verb(fail)
    ran = burnish("try")
    assert "[red]" in ran.err
    assert "\\x1b[31m\\x07" in ran.err
    assert "\x1b[31m" not in ran.err
    assert "the rule" in ran.err
    assert "the remedy" in ran.err


def test_a_bug_is_short_and_the_traceback_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BURNISH_DEBUG", raising=False)
    monkeypatch.setattr(sys, "argv", ["burnish"])
    __main__.explain_bug(ZeroDivisionError, ZeroDivisionError("division by zero"), None)
    short = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in short
    assert "--debug" in short
    monkeypatch.setenv("BURNISH_DEBUG", "1")
    __main__.explain_bug(ZeroDivisionError, ZeroDivisionError("division by zero"), None)
    assert "this is a bug" not in capsys.readouterr().err


def test_the_version_is_one_line(burnish: Any) -> None:
    ran = burnish("--version")
    assert ran.code == 0
    assert ran.out.startswith("burnish ")
