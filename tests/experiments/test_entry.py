"""A study that was asked wrongly ends as the command line does: three parts, an exit code, no traceback."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import burnish.experiments
from burnish.errors import DataError, UsageError
from burnish.experiments import masks
from burnish.experiments.entry import enter

FOLDER = Path(burnish.experiments.__file__).parent
ENTRIES = sorted(path for path in FOLDER.rglob("*.py") if '\nif __name__ == "__main__"' in path.read_text())


def ends_in_words(source: str) -> bool:
    """Whether what a file does as a program is `enter(main)`, and nothing else."""
    last = ast.parse(source).body[-1]
    return isinstance(last, ast.If) and [ast.unparse(line) for line in last.body] == ["enter(main)"]


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_study_is_entered_by_the_one_way(path: Path) -> None:
    assert ends_in_words(path.read_text(encoding="utf-8"))


def test_the_check_sees_a_study_that_has_a_way_of_its_own() -> None:
    assert len(ENTRIES) >= 8
    for body in ("main()", "raise SystemExit(main())", "enter(main)\n    print()"):
        assert not ends_in_words(f'if __name__ == "__main__":\n    {body}\n')


def refused() -> None:
    raise DataError("rows.jsonl:3: what", rule="the rule", remedy="the remedy")


def not_there() -> None:
    Path("/nowhere/rows.jsonl").read_bytes()


def out_of_memory() -> None:
    raise MemoryError


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("study", "code", "said"),
    [
        (refused, 3, [" error  rows.jsonl:3: what", "  rule  the rule", "remedy  the remedy"]),
        (not_there, 1, [" error  /nowhere/rows.jsonl: No such file or directory"]),
        (out_of_memory, 4, [" error  the host has no more memory"]),
        (interrupted, 130, ["interrupted"]),
        (lambda: masks.main([]), 2, [" error  0 arguments"]),
    ],
)
def test_what_is_refused_is_said_and_the_exit_code_says_what_kind_it_is(
    study: object, code: int, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        enter(study)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert left.value.code == code
    assert lines[: len(said)] == said and len(lines) in (1, 3)


def test_a_bug_keeps_its_traceback_and_a_study_that_ends_well_returns() -> None:
    with pytest.raises(ZeroDivisionError):
        enter(lambda: 1 / 0)
    enter(lambda: None)


def test_a_campaign_that_is_none_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from burnish.experiments.reliability import __main__ as reliability

    monkeypatch.setattr("sys.argv", ["reliability", "F5", "F99"])
    with pytest.raises(SystemExit) as left:
        enter(reliability.main)
    assert left.value.code == 2 and "no campaign F99; there are F1 F2" in capsys.readouterr().err


def test_a_refused_argument_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="3 arguments"):
        masks.main(["a", "b", "c"])
