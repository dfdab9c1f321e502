"""What is printed is safe on a terminal, and stdout holds JSON alone where it was asked for."""

from __future__ import annotations

import json

import pytest

from burnish.cli.output import Output, printable


def test_control_characters_are_escaped_and_line_breaks_stay() -> None:
    assert printable("a\x1b]8;;x\x07\r\u202e\nÄ🙂") == "a\\x1b]8;;x\\x07\\r\\u202e\nÄ🙂"


def test_with_json_only_json_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.say("hello")
    output.table(("a",), [("b",)])
    output.emit({"loss": float("nan"), "n": 1})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"loss": None, "n": 1}
    assert "hello" in captured.err


def test_without_json_nothing_is_emitted(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.emit({"n": 1})
    output.say("[bold]plain[/bold]")
    assert capsys.readouterr().out == "[bold]plain[/bold]\n"
