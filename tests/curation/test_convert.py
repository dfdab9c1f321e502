"""What is converted reads back as the same rows; what the target could not hold is said."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from burnish.curation.convert import Conversion
from burnish.curation.flow import Job, sift
from burnish.curation.items import Input, Item, read_items
from burnish.data.ledger import read_ledger
from tests.conftest import write_jsonl

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
PLAIN = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), TEXT)
ARGUMENTS = st.dictionaries(
    TEXT, st.recursive(PLAIN | st.none(), lambda inner: st.lists(inner, max_size=2)), max_size=3
)
CALL = st.builds(lambda name, given: {"function": {"name": name, "arguments": given}}, TEXT, ARGUMENTS)
ANSWER = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXT},
    optional={
        "reasoning_content": TEXT,
        "tool_calls": st.lists(CALL, min_size=1, max_size=2),
        "weight": st.integers(0, 3),
        "train": st.booleans(),
    },
)
MESSAGES = st.builds(
    lambda rounds: {
        "messages": [turn for asked, said in rounds for turn in ({"role": "user", "content": asked}, said)]
    },
    st.lists(st.tuples(TEXT, ANSWER), min_size=1, max_size=3),
)
SHAREGPT = st.builds(
    lambda rounds, system: {
        "conversations": [
            turn
            for asked, said in rounds
            for turn in ({"from": "human", "value": asked}, {"from": "gpt", "value": said})
        ],
        "system": system,
    },
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
    TEXT,
)
ALPACA = st.fixed_dictionaries(
    {"instruction": TEXT, "input": st.text(max_size=5), "output": TEXT},
    optional={"history": st.lists(st.tuples(TEXT, TEXT).map(list), max_size=2), "topic": TEXT},
)
COMPLETION = st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT})
DOCUMENT = st.fixed_dictionaries({"text": TEXT})


def contents(path: Path | str) -> list[Any]:
    return [
        item.row.content if isinstance(item, Item) else item.reason for item in read_items([Input(str(path))])
    ]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@given(
    rows=st.one_of(
        *(
            st.lists(kind, min_size=1, max_size=4)
            for kind in (MESSAGES, SHAREGPT, ALPACA, COMPLETION, DOCUMENT)
        )
    )
)
@settings(max_examples=40, deadline=None)
def test_what_is_converted_reads_back_as_the_same_content(ending: str, rows: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        raw = write_jsonl(Path(folder) / "raw.jsonl", rows)
        before = contents(raw)
        assume(
            not all(isinstance(content, str) for content in before)
        )  # all refused: there is nothing to write
        out = Path(folder) / f"out.{ending}"
        sift(Job("convert", (Input(str(raw)),), out, as_messages=True), Conversion(ending == "parquet"))
        assert contents(out) == [content for content in before if not isinstance(content, str)]


def test_columns_of_their_own_go_along_and_those_of_the_format_do_not(tmp_path: Path) -> None:
    raw = write_jsonl(
        tmp_path / "raw.jsonl", [{"instruction": "a", "input": "", "output": "b", "topic": "letters"}]
    )
    sift(Job("convert", (Input(str(raw)),), tmp_path / "out.jsonl", as_messages=True), Conversion())
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "topic": "letters",
    }


def test_what_could_not_be_held_is_in_the_ledger(burnish: Any, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a", "annotations": [1]}, {"role": "assistant", "content": "b"}]
    raw = write_jsonl(tmp_path / "raw.jsonl", [{"messages": turns, "note": {"x": None, "y": 1}}])
    ran = burnish("data", "convert", str(raw), "-o", str(tmp_path / "out.parquet"), "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said["changed"] == {"not held by the target": 1}
    (entry,) = read_ledger(Path(said["ledger"]))
    assert "messages[0].annotations" in entry.detail and "null or empty object within note" in entry.detail


def test_plain_text_and_conversations_do_not_go_into_one_file(burnish: Any, tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": "a"}])
    two = write_jsonl(tmp_path / "two.jsonl", [{"instruction": "a", "output": "b"}])
    ran = burnish("data", "convert", str(one), str(two), "-o", str(tmp_path / "out.jsonl"))
    assert ran.code == 3 and "one file has one format" in ran.err


def test_a_file_is_not_written_over_itself_or_into_its_own_folder(burnish: Any, data_file: Path) -> None:
    for source in (data_file, data_file.parent):
        ran = burnish("data", "convert", str(source), "-o", str(data_file), "--overwrite")
        assert ran.code == 2 and "input" in ran.err
