"""Parquet and Arrow: T16 and T80 (nulls, string kinds, maps), and T74, T75 where columns have types."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from burnish.data.arrow import without_nulls
from burnish.errors import DataError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def parquet(tmp_path, table):
    path = tmp_path / "train.parquet"
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path)
    return path


def test_rows_are_numbered_from_one_through_all_batches(tmp_path, read_all):
    rows = read_all(parquet(tmp_path, {"text": [f"t{k}" for k in range(700)]}))
    assert [row.origin.line for row in rows] == list(range(1, 701))
    assert [row.content.text for row in rows] == [f"t{k}" for k in range(700)]


def test_t16_nulls_that_arrow_filled_in_are_taken_away_again(tmp_path, read_all):
    calls = [{"id": "1", "function": {"name": "f", "arguments": {"city": "Oslo"}}}]
    other = [{"id": "2", "function": {"name": "g", "arguments": {"day": 3}}}]
    messages = [
        [CHAT[0], {"role": "assistant", "content": None, "tool_calls": calls}],
        [
            CHAT[0],
            {"role": "assistant", "content": None, "tool_calls": other},
            {"role": "tool", "content": "7"},
        ],
    ]
    tools = [[{"name": "f", "parameters": {"city": {"type": "string"}}}], [{"name": "g", "description": "d"}]]
    one, two = read_all(parquet(tmp_path, {"messages": messages, "tools": tools}))
    assert one.content.messages == [
        CHAT[0],
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"city": "Oslo"}}}
            ],
        },
    ]
    assert two.content.messages[1]["tool_calls"][0]["function"]["arguments"] == {"day": 3}
    assert [tool["function"] for tool in (*one.content.tools, *two.content.tools)] == [
        tools[0][0],
        tools[1][0],
    ]


def test_t74_a_column_that_is_null_first_and_text_later_is_read(tmp_path, read_all):
    table = {"instruction": ["i"] * 3, "input": [None, None, "x"], "output": ["o"] * 3}
    rows = read_all(parquet(tmp_path, table))
    assert [row.content.messages[0]["content"] for row in rows] == ["i", "i", "i\n\nx"]


def test_t75_text_that_looks_like_a_schema_stays_text(tmp_path, read_all):
    odd = '{"type": "struct", "fields": []}'
    assert read_all(parquet(tmp_path, {"text": [odd, "null", "[]"]}))[0].content.text == odd


@pytest.mark.parametrize(
    "type_",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_t80_every_kind_of_string_column_is_text(tmp_path, read_all, type_):
    if type_ == pa.string_view():
        pytest.importorskip("pyarrow", minversion="18.0")
    rows = read_all(parquet(tmp_path, pa.table({"text": pa.array(["a", "b\u2028"], type_)})))
    assert [row.content.text for row in rows] == ["a", "b\u2028"]


def test_t80_turns_as_structs_and_as_a_json_string_are_the_same(tmp_path, read_all):
    written = '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'
    (structs,) = read_all(parquet(tmp_path, {"messages": [CHAT]}))
    (string,) = read_all(parquet(tmp_path, {"messages": [written]}))
    assert structs.content == string.content


def test_t80_a_map_of_arguments_is_an_object_and_a_key_given_twice_is_rejected(tmp_path, read_all):
    arguments = pa.map_(pa.string(), pa.string())
    function = pa.struct([("name", pa.string()), ("arguments", arguments)])
    turn = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(function))])
    turns = [
        [{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": pairs}]}]
        for pairs in ([("a", "1")], [("a", "1"), ("a", "2")], [("b", "2")])
    ]
    table = pa.table({"messages": pa.array(turns, pa.list_(turn))})
    one, twice, three = read_all(parquet(tmp_path, table))
    assert one.content.messages[0]["tool_calls"][0]["function"]["arguments"] == {"a": "1"}
    assert (twice.reason, twice.origin.line) == ("duplicate key", 2)
    assert three.content.messages[0]["tool_calls"][0]["function"]["arguments"] == {"b": "2"}


def test_t80_values_that_are_no_text_are_rejected_row_by_row(tmp_path, read_all):
    now = datetime.datetime(2026, 1, 1)
    for column in ([now] * 2, [b"raw"] * 2, [1.5] * 2, [["a"]] * 2):
        rows = read_all(parquet(tmp_path, {"text": column}))
        assert [row.reason for row in rows] == ["non-string content"] * 2


def test_t80_null_lists_and_null_turns_are_rejected(tmp_path, read_all):
    empty, null, inside, good = read_all(parquet(tmp_path, {"messages": [[], None, [None], CHAT]}))
    assert (empty.reason, null.reason, inside.reason) == (
        "empty conversation",
        "missing field",
        "not an object",
    )
    assert good.content.messages == CHAT


def test_t79_bytes_that_are_no_utf8_are_rejected_at_their_row(tmp_path, read_all):
    raw = pa.array([b"a", b"\xff", b"c"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    rows = read_all(parquet(tmp_path, pa.table({"text": text})))
    assert [type(row).__name__ for row in rows] == ["Row", "Rejected", "Row"]
    assert (rows[1].reason, rows[1].origin.line) == ("invalid UTF-8", 2)


def test_arrow_stream_and_file_are_read(tmp_path, read_all):
    table = pa.table({"text": [f"t{k}" for k in range(600)]})
    for opener in (pa.ipc.new_stream, pa.ipc.new_file):
        path = tmp_path / "train.arrow"
        with opener(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=400)
        assert [row.content.text for row in read_all(path)] == table["text"].to_pylist()


@pytest.mark.parametrize("name", ["train.parquet", "train.arrow"])
def test_a_damaged_file_is_refused_by_name(tmp_path, read_all, name):
    (tmp_path / name).write_bytes(b"PAR1 not a table at all PAR1")
    with pytest.raises(DataError, match=name):
        read_all(tmp_path / name)


def test_a_column_that_stands_twice_is_refused(tmp_path, read_all):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pytest.raises(DataError, match="'text' stands twice"):
        read_all(parquet(tmp_path, table))


def test_nulls_go_from_objects_and_stay_in_lists():
    assert without_nulls({"a": None, "b": [None, {"c": None}], "d": {"e": 0}}) == {
        "b": [None, {}],
        "d": {"e": 0},
    }
