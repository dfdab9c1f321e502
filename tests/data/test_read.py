"""Properties of reading: no text changed, no row lost, order kept; and no bytes that crash it."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.data.read import inspect_source, read_source
from burnish.data.reject import Reason
from burnish.errors import DataError, UsageError
from burnish.types import Conversation, Rejected, Row

TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from("\u2028\u2029\u0085\x0b\x0c\x1c\x00\ufeff\r\n\t :\"\\{}[],'"),
    ),
    max_size=30,
)
TURNS = st.lists(st.tuples(TEXT, TEXT.filter(bool)), min_size=1, max_size=3)


def as_messages(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for pair in turns
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@settings(max_examples=150, deadline=None)
@given(
    conversations=st.lists(TURNS, min_size=1, max_size=6),
    end=st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n \t\r\n"]),
    mark=st.booleans(),
    last=st.booleans(),
    ascii_only=st.booleans(),
    packed=st.booleans(),
)
def test_a_written_conversation_is_read_back_to_the_character(
    folder, read_all, conversations, end, mark, last, ascii_only, packed
):
    lines = [
        json.dumps({"messages": as_messages(turns)}, ensure_ascii=ascii_only).encode()
        for turns in conversations
    ]
    raw = (b"\xef\xbb\xbf" if mark else b"") + end.join(lines) + (end if last else b"")
    path = folder / ("train.jsonl.gz" if packed else "train.jsonl")
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    rows = read_all(path)
    assert [row.content for row in rows] == [Conversation(as_messages(turns)) for turns in conversations]
    assert [row.origin.line for row in rows] == [1 + k * end.count(b"\n") for k in range(len(rows))]


CALL = {"function": {"name": "f", "arguments": '{"a": [1]}'}}
CALLING = {"role": "assistant", "content": None, "weight": 0.5, "tool_calls": [CALL]}
SHAREGPT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
SEEDS = {
    ".jsonl": [
        json.dumps({"messages": as_messages([("q\u2028", "a")]), "tools": None}),
        json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, CALLING]}),
    ],
    ".json": [json.dumps([SHAREGPT, SHAREGPT])],
    ".csv": ['instruction,input,output\n"say ""a""\nb",,"c, d"\nq,i,o'],
    ".txt": ["First.\n\nSecond.\n<|endoftext|>\nThird."],
    ".jsonl.gz": [json.dumps({"text": "abc"}), json.dumps({"text": "d"})],
}
NOISE = [b"\x00", b"\xff", b"\n", b"\r", b'"', b"{", b"}", b"[", b"]", b",", b"null", b"NaN", b"1e999", b"\\"]
NOISE += [b"\\ud800", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"true", b"9" * 40, b"assistant", b"[" * 300]


def mutated(raw: bytes, seed: int) -> bytes:
    """The bytes after one to four insertions, deletions or repetitions."""
    draw = random.Random(seed)
    for _ in range(draw.randint(1, 4)):
        place, length = draw.randrange(len(raw) + 1), draw.randrange(6)
        middle = draw.choice([draw.choice(NOISE), b"", raw[place : place + length] * 2, draw.randbytes(2)])
        raw = raw[:place] + middle + raw[place + length :]
    return raw


@settings(max_examples=600, deadline=None)
@given(suffix=st.sampled_from(sorted(SEEDS)), seed=st.integers(0, 2**32))
def test_whatever_the_bytes_are_each_row_is_read_rejected_or_the_file_refused(
    folder, make_source, suffix, seed
):
    raw = mutated("\n".join(SEEDS[suffix]).encode(), seed)
    if suffix.endswith(".gz"):
        raw = gzip.compress(raw) if seed % 2 else mutated(gzip.compress(raw), seed)
    path = folder / f"mutated{suffix}"
    path.write_bytes(raw)
    num_lines = raw.count(b"\n") + 1
    try:
        rows = list(
            read_source(make_source(str(path)), source_index=0, first_index=0, max_line_bytes=1 << 16)
        )
    except DataError as error:
        assert "mutated" in error.saw
        return
    assert [row.index for row in rows] == list(range(len(rows)))
    lines = [row.origin.line for row in rows]
    assert lines == sorted(lines)
    assert suffix.endswith(".gz") or suffix == ".json" or lines[-1] <= num_lines
    for row in rows:
        assert isinstance(row, Row) or row.reason in set(Reason)


@settings(max_examples=60, deadline=None)
@given(bad_line=st.integers(1, 30))
def test_a_broken_line_is_rejected_under_its_own_number(folder, read_all, bad_line):
    lines = [json.dumps({"text": f"t{k}"}) for k in range(1, 31)]
    lines[bad_line - 1] = lines[bad_line - 1][:-1]
    path = folder / "one_bad.jsonl"
    path.write_text("\n".join(lines))
    (rejected,) = [row for row in read_all(path) if isinstance(row, Rejected)]
    assert rejected.origin.line == bad_line
    assert str(rejected.origin) == f"{path}:{bad_line}"


def test_a_folder_is_read_in_the_order_of_its_file_names(tmp_path, read_all):
    for name in ("b.jsonl", "a.jsonl", "c.JSON"):
        (tmp_path / name).write_text(json.dumps({"text": name}))
    (tmp_path / "README.md").write_text("not rows")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / ".hidden.jsonl").write_text("{}")
    assert [row.content.text for row in read_all(tmp_path)] == ["a.jsonl", "b.jsonl", "c.JSON"]
    assert [row.content.text for row in read_all(tmp_path / "[ab].jsonl")] == ["a.jsonl", "b.jsonl"]


def test_the_format_of_the_recipe_stands_above_detection(tmp_path, make_source, read_all):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"prompt": "p", "completion": "c", "text": "t"}))
    assert inspect_source(make_source(str(path))).format == "prompt-completion"
    assert inspect_source(make_source(str(path), format="text")).reasons == ("the recipe says so",)
    assert read_all(path, format="text")[0].content.text == "t"


def test_a_format_that_does_not_exist_is_refused(tmp_path, read_all):
    with pytest.raises(UsageError, match="'chatml'"):
        read_all(tmp_path, format="chatml")


def test_a_file_of_which_nothing_can_be_read_is_refused_with_its_first_fault(tmp_path, read_all):
    path = tmp_path / "train.jsonl"
    path.write_text('[{"text": "a"}]\n[{"text": "b"}]')
    with pytest.raises(DataError, match=r"train\.jsonl:1.*none of the first 2 rows") as caught:
        read_all(path)
    assert ".json" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "document", "texts"),
    [
        ("array.json", '[\n {"text": "a"},\n {"text": "b"}\n]', ["a", "b"]),
        ("array_per_line.json", '[{"text": "a"},\n{"text": "b"}]', ["a", "b"]),
        ("data.json", '{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}', ["a", "b"]),
        ("data_pretty.json", '{\n "data": [\n {"text": "a"},\n {"text": "b"}]}', ["a", "b"]),
        ("lines.json", '\n{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ("lines_with_data.json", '{"text": "a", "data": []}\n{"text": "b", "data": []}', ["a", "b"]),
        ("single.json", '\ufeff{"text": "a"}', ["a"]),
    ],
)
def test_a_json_file_may_be_an_array_an_object_with_data_or_lines(tmp_path, read_all, name, document, texts):
    (tmp_path / name).write_text(document, encoding="utf-8")
    assert [row.content.text for row in read_all(tmp_path / name)] == texts


def test_a_json_document_that_is_broken_is_refused_whole(tmp_path, read_all):
    path = tmp_path / "train.json"
    path.write_text('[{"text": "a"}, {"text": }]')
    with pytest.raises(DataError, match=r"broken JSON.*column 26"):
        read_all(path)


def test_an_element_that_is_no_object_is_rejected_by_its_place_in_the_array(tmp_path, read_all):
    path = tmp_path / "train.json"
    path.write_text('[{"text": "a"}, 7, {"text": "b"}]')
    rows = read_all(path)
    assert [(row.origin.line, type(row).__name__) for row in rows] == [
        (1, "Row"),
        (2, "Rejected"),
        (3, "Row"),
    ]
