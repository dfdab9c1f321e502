"""`burnish check` says where its certificate is, whether it was made now, what the data becomes, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.conftest import conversation, write_jsonl

from burnish.cli import progress
from burnish.cli.progress import RowsDone


@pytest.fixture
def recipe_file(
    model_directory: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))
    long = {
        "messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "on and " * 400}]
    }
    data = write_jsonl(
        tmp_path / "train.jsonl", [*(conversation(k) for k in range(20)), long, conversation(0)]
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(f"model: {model_directory()}\ndatasets: {data}\non_bad_row: drop\nmax_length: 256\n")
    return file


def test_it_names_its_certificate_and_says_when_it_was_there_already(burnish: Any, recipe_file: Path) -> None:
    first = json.loads(burnish("check", str(recipe_file), "--json").out)
    again = json.loads(burnish("check", str(recipe_file), "--json").out)
    assert (first["reused"], again["reused"]) == (False, True)
    assert first | {"reused": True} == again
    keys = ["ok", "rows", "kept", "views", "graded_tokens", "violations", "refused", "rows_per_second"]
    assert [first[key] for key in keys[:4]] == [True, 22, 20, 20]
    assert first["refused"] == {"duplicate": 1, "too long": 1}
    certificate = json.loads(Path(first["certificate"]).read_text())
    assert {key: certificate[key] for key in keys[:-1]} == {key: first[key] for key in keys[:-1]}
    assert "nothing changed since" in burnish("check", str(recipe_file)).out


def test_it_says_what_to_do_about_each_reason(burnish: Any, recipe_file: Path) -> None:
    said = burnish("check", str(recipe_file)).out
    assert "1 row dropped: too long" in said and "on_too_long=cut_answer" in said
    assert "1 row dropped: duplicate" in said and "nothing to do" in said


def test_how_far_it_is_is_shown_only_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console = Console(record=True, force_terminal=False, width=80)
    rows = RowsDone(console)
    for seconds in (1.0, 1.9, 3.0, 12.0, 13.0):
        now[0] = 100.0 + seconds
        rows.show(int(seconds * 1000), 20_000)
    rows.close()
    assert console.export_text().strip() == "12,000 of 20,000 rows encoded"


def test_it_asks_the_oracle_where_it_is_told_to(burnish: Any, recipe_file: Path) -> None:
    assert json.loads(burnish("check", str(recipe_file), "--json").out)["oracle"] is None
    said = json.loads(burnish("check", str(recipe_file), "--oracle", "--json").out)["oracle"]
    assert said.startswith("loss off by ") and "from plain transformers" in said
