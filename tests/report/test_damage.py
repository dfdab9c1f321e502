"""Damaged and half-written runs: a teaching error, or a section left out with a note, and never a traceback."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest

from burnish.errors import UsageError
from burnish.report.collect import collect
from burnish.report.page import html
from tests.report.runs import make_run
from tests.report.test_page import LEFT_OUT, page_of, text_of

FILES = (
    *(
        "metrics.jsonl",
        "samples.jsonl",
        "events.jsonl",
        "ledger.jsonl",
        "sharpening.jsonl",
        "forgetting.jsonl",
    ),
    *("evals.json", "environment.json", "plan.json", "summary.json", "certificate.json", "resolved.yaml"),
)
ODD = (None, True, -1, 0, 1e308, -1e14, 1e-300, "", "x", [], {}, [None], {"": None}, [[1]], {"value": "x"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_folder_that_is_no_run_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        collect(tmp_path)
    assert "neither resolved.yaml nor metrics.jsonl" in told.value.saw
    assert told.value.remedy


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rest", [b'{"a": [1, 2', b"\xff\xfe\x00[[\n[1, 2]\nnull\n"])
def test_a_file_cut_short_or_full_of_noise_leaves_the_others_told(name: str, rest: bytes, run: Path) -> None:
    (run / name).write_bytes(rest)
    page = page_of(run)
    assert LEFT_OUT not in page
    assert "What it took" in page


@pytest.mark.parametrize("name", FILES)
def test_without_a_file_its_part_is_left_out(name: str, run: Path) -> None:
    (run / name).unlink()
    assert LEFT_OUT not in page_of(run)


def test_a_line_that_cannot_be_read_is_named(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")
    (run / "metrics.jsonl").write_bytes(b"\n".join([*lines[:10], b'{"kind": "tra', *lines[10:]]))
    text = text_of(page_of(run))
    assert "metrics.jsonl: line 11 cannot be read and is left out." in text


def test_a_last_line_that_is_being_written_is_no_damage(run: Path) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "st')
    assert collect(run).notes == []


def test_a_json_file_that_is_damaged_is_named(run: Path) -> None:
    (run / "summary.json").write_bytes(b'{"steps": 120, ')
    assert "summary.json is damaged" in text_of(page_of(run))


def test_a_damaged_recipe_is_told_from_the_environment(run: Path) -> None:
    (run / "resolved.yaml").write_text("model: [marble\n  - : {")
    (run / "environment.json").write_bytes(orjson.dumps({"recipe": {"model": "marble", "adapter": "lora"}}))
    told = collect(run)
    assert told.recipe["adapter"] == "lora" and "resolved.yaml is damaged" in told.notes[0]


def test_a_folder_in_the_place_of_a_file_is_no_file(run: Path) -> None:
    (run / "evals.json").unlink()
    (run / "evals.json").mkdir()
    assert LEFT_OUT not in page_of(run)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


@pytest.mark.parametrize("name", [name for name in FILES if name != "resolved.yaml"])
@pytest.mark.parametrize("seed", range(3))
def test_odd_values_anywhere_draw_a_page(name: str, seed: int, whole: Path, tmp_path: Path) -> None:
    chance = random.Random(f"{name}{seed}")
    lines = [orjson.loads(line) for line in (whole / name).read_bytes().splitlines()]
    for _ in range(1 + 12 * seed):
        found = list(places(lines))
        holder, key = chance.choice(found)
        holder[key] = deepcopy(chance.choice(ODD))
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    (path / name).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    page = page_of(path)
    assert LEFT_OUT not in page, f"{name}, seed {seed}"
    assert not re.search(r'(points|[xy][12]?|width|height)="[^"]*(nan|inf)', page)


def test_a_section_that_cannot_be_drawn_is_left_out_and_the_others_stand(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr("burnish.report.page.curves", broken)
    text = text_of(html([collect(run)]))
    assert f"This part is left out: {LEFT_OUT} (KeyError)." in text
    assert "What it took" in text
