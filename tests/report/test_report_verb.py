"""`burnish report` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from burnish.__main__ import run as burnish
from tests.report.runs import make_run, shots


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_it_writes_report_html_into_the_run_and_says_where(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert burnish(["report", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["report"] == str(run / "report.html")
    assert told["bytes"] == (run / "report.html").stat().st_size > 50_000
    assert not list(run.glob(".report*"))


def test_several_runs_a_price_and_files_of_other_verbs(run: Path, tmp_path: Path) -> None:
    other, out = make_run(tmp_path / "other"), tmp_path / "both.html"
    (tmp_path / "fewshot.json").write_bytes(orjson.dumps(shots()))
    asked = ["report", str(run), str(other), "--out", str(out), "--price", "3", "--currency", "EUR"]
    assert burnish([*asked, "--fewshot", str(tmp_path)]) == 0
    page = out.read_text(encoding="utf-8")
    assert (
        "run and other, side by side" in page
        and "cost at 3 EUR an hour" in page
        and "Prompting or tuning" in page
    )


@pytest.mark.parametrize(
    ("words", "code", "saw"),
    [
        (["{run}/nowhere"], 2, "is not a run directory"),
        (["{run}", "--out", "{run}/no/such/report.html"], 2, "there is no folder"),
        (["{run}", "--out", "{run}"], 2, "it is a folder"),
        (["{run}", "--curve", "{run}/resolved.yaml"], 3, "resolved.yaml"),
        (["{run}"] * 13, 2, "13 runs"),
    ],
)
def test_what_cannot_be_is_refused_with_what_mends_it(
    words: list[str], code: int, saw: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert burnish(["report", *(word.format(run=run) for word in words)]) == code
    told = capsys.readouterr().err
    assert saw in told and "remedy" in told and "Traceback" not in told
