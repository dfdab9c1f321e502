"""One test per reader trap T70-T82: three good rows and one that has broken other trainers.

T74, T75 and T80 (columns typed by their first rows) are in test_arrow.py, where types exist.
"""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from burnish.data.read import read_source
from burnish.errors import DataError
from burnish.types import Conversation, Rejected, Row

GOOD = [
    json.dumps(
        {"messages": [{"role": "user", "content": f"q{k}"}, {"role": "assistant", "content": f"a{k}"}]}
    )
    for k in range(3)
]


def write(path: Path, lines: list[str | bytes], *, end: bytes = b"\n", last: bool = True) -> Path:
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    path.write_bytes(end.join(raw) + (end if last else b""))
    return path


def with_bad(tmp_path: Path, bad: str | bytes) -> Path:
    """Three good rows with a bad one on line 3."""
    return write(tmp_path / "train.jsonl", [GOOD[0], GOOD[1], bad, GOOD[2]])


def only_rejection(rows: list[Row | Rejected]) -> Rejected:
    """The one rejected row, after a check that the other three stand where they stood."""
    assert [row.index for row in rows] == [0, 1, 2, 3]
    assert [row.origin.line for row in rows] == [1, 2, 3, 4]
    (rejected,) = [row for row in rows if isinstance(row, Rejected)]
    assert replies([row for row in rows if isinstance(row, Row)]) == ["a0", "a1", "a2"]
    return rejected


def replies(rows: list[Row | Rejected]) -> list[str]:
    return [row.content.messages[-1]["content"] for row in rows]  # type: ignore[union-attr]


def test_t70_a_broken_line_is_rejected_at_its_line_and_reading_goes_on(tmp_path, read_all):
    rejected = only_rejection(read_all(with_bad(tmp_path, '{"messages": [{"role": "user"')))
    assert rejected.reason == "broken JSON"
    assert (rejected.origin.line, rejected.index) == (3, 2)
    assert "column" in rejected.detail


def test_t70_a_line_that_is_no_object_is_rejected(tmp_path, read_all):
    for value in ("[]", "3", '"text"', "null"):
        assert only_rejection(read_all(with_bad(tmp_path, value))).reason == "not an object"


def test_t71_a_bom_is_read_as_if_it_were_not_there(tmp_path, read_all):
    plain = write(tmp_path / "plain.jsonl", GOOD)
    marked = tmp_path / "marked.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert replies(read_all(marked)) == replies(read_all(plain))


def test_t71_a_utf16_file_is_refused_with_the_command_that_converts_it(tmp_path, read_all):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(GOOD), encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16") as caught:
        read_all(path)
    assert "iconv" in caught.value.remedy


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\r\n \r\n"])
def test_t72_line_ends_blank_lines_and_the_last_newline_change_nothing(tmp_path, read_all, end, last):
    rows = read_all(write(tmp_path / "train.jsonl", GOOD, end=end, last=last))
    assert replies(rows) == ["a0", "a1", "a2"]
    step = end.count(b"\n")
    assert [row.origin.line for row in rows] == [1, 1 + step, 1 + 2 * step]


def test_t73_line_separators_and_nul_inside_a_string_are_text(tmp_path, read_all):
    odd = "a\u2028b\u2029c\u0085d\x0be\x1cf\x00g"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": odd}]
    for ascii_only in (True, False):
        row = json.dumps({"messages": turns}, ensure_ascii=ascii_only)
        assert replies(read_all(write(tmp_path / "train.jsonl", [row, GOOD[0]]))) == [odd, "a0"]


def test_t73_a_lone_surrogate_is_rejected(tmp_path, read_all):
    bad = '{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "a"}]}'
    rejected = only_rejection(read_all(with_bad(tmp_path, bad)))
    assert rejected.reason == "broken JSON"
    assert "surrogate" in rejected.detail


def test_t76_a_row_of_another_format_is_rejected_and_told_so(tmp_path, read_all):
    rejected = only_rejection(read_all(with_bad(tmp_path, '{"prompt": "2+2=", "completion": "4"}')))
    assert rejected.reason == "wrong format"
    assert "one source has one format" in rejected.detail


def test_t76_a_row_with_the_columns_of_two_formats_is_refused(tmp_path, read_all):
    both = json.dumps({**json.loads(GOOD[0]), "prompt": "p", "completion": "c"})
    path = write(tmp_path / "train.jsonl", [both])
    with pytest.raises(DataError, match="messages and prompt-completion"):
        read_all(path)
    assert replies(read_all(path, format="messages")) == ["a0"]


def test_t76_a_file_half_of_one_format_and_half_of_another_is_refused(tmp_path, read_all):
    path = write(tmp_path / "train.jsonl", [GOOD[0], '{"text": "plain"}'])
    with pytest.raises(DataError, match="1 rows of messages, 1 rows of text"):
        read_all(path)


@pytest.mark.parametrize(
    "twice",
    [
        '{"messages": [{"role": "user", "content": "x", "content": "q"}]}',
        '{"messages": [], "messages": [{"role": "user", "content": "q"}]}',
        '{"id" : "\\u003a", "b" :1, "b":2, "messages": [{"role": "assistant", "content": "a"}]}',
        '{"id": "a:b", "messages" : [{"role" :"assistant","content":"x","content" :"::"}]}',
    ],
)
def test_t77_a_key_given_twice_is_rejected_however_it_is_written(tmp_path, read_all, twice):
    assert only_rejection(read_all(with_bad(tmp_path, twice))).reason == "duplicate key"


def test_t77_colons_and_escapes_in_text_are_not_taken_for_keys(tmp_path, read_all):
    text = 'a: "b": {"c": "d"} \\u003a \\":'
    for escaped in (json.dumps(text), json.dumps(text).replace(":", "\\u003A")):
        row = f'{{"messages" :[{{"role":"assistant" , "content": {escaped}}}]}}'
        assert replies(read_all(write(tmp_path / "train.jsonl", [row]))) == [text]


def test_t78_a_line_at_the_limit_is_read_and_one_byte_more_is_rejected(tmp_path, read_all):
    limit = 4_000
    padding = limit - len('{"text": ""}')
    lines = [
        '{"text": "a"}',
        f'{{"text": "{"b" * padding}"}}',
        f'{{"text": "{"c" * (padding + 1)}"}}',
        '{"text": "d"}',
    ]
    for last in (True, False):
        path = write(tmp_path / "train.jsonl", [*lines, lines[1], lines[2]], last=last)
        rows = read_all(path, max_line_bytes=limit)
        assert [type(row).__name__ for row in rows] == ["Row", "Row", "Rejected", "Row", "Row", "Rejected"]
        assert [row.origin.line for row in rows] == [1, 2, 3, 4, 5, 6]
        assert rows[2].reason == "line too long"


def test_t78_a_long_line_is_passed_over_in_bounded_memory(tmp_path, read_all):
    path = tmp_path / "train.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"text": "a"}\n{"text": "')
        for _ in range(48):
            stream.write(b"b" * (1 << 20))
        stream.write(b'"}\n{"text": "c"}\n')
    tracemalloc.start()
    rows = read_all(path, max_line_bytes=4 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.origin.line for row in rows] == [1, 2, 3]
    assert isinstance(rows[1], Rejected)
    assert peak < 12 << 20  # three times the limit; the line has 48 MiB


def test_t79_bytes_that_are_no_utf8_are_rejected_at_their_line(tmp_path, read_all):
    bad = GOOD[0].replace("a0", "caf").encode()[:-3] + b'\xe9"}]}'
    rejected = only_rejection(read_all(with_bad(tmp_path, bad)))
    assert rejected.reason == "invalid UTF-8"
    assert "0xe9" in rejected.detail


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_t81_numbers_that_json_does_not_have_are_rejected(tmp_path, read_all, literal):
    bad = GOOD[0].replace('"role": "user"', f'"weight": {literal}, "role": "user"')
    assert only_rejection(read_all(with_bad(tmp_path, bad))).reason == "broken JSON"


@pytest.mark.parametrize("depth", [300, 1_000, 10_000])
def test_t81_bottomless_nesting_is_rejected(tmp_path, read_all, depth):
    bad = '{"messages": ' + "[" * depth + "]" * depth + "}"
    assert only_rejection(read_all(with_bad(tmp_path, bad))).reason == "nested too deeply"


def test_t81_a_deep_tool_argument_is_rejected(tmp_path, read_all):
    deep = '{"a": ' * 100 + "1" + "}" * 100
    call = f'{{"function": {{"name": "f", "arguments": {deep}}}}}'
    bad = f'{{"messages": [{{"role": "assistant", "content": null, "tool_calls": [{call}]}}]}}'
    assert only_rejection(read_all(with_bad(tmp_path, bad))).reason == "nested too deeply"


def test_t82_a_gzip_file_that_unpacks_to_one_endless_line_is_refused(tmp_path, read_all):
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(40):
            stream.write(bytes(1 << 20))
    with pytest.raises(DataError, match="no end of line"):
        read_all(path, max_line_bytes=1 << 16)


@pytest.mark.parametrize("damage", ["cut", "header", "body"])
def test_t82_a_damaged_gzip_file_is_refused_by_name(tmp_path, read_all, damage):
    path = tmp_path / "train.jsonl.gz"
    whole = gzip.compress("\n".join(GOOD * 50).encode())
    broken = {
        "cut": whole[:-12],
        "header": b"PK" + whole[2:],
        "body": whole[:30] + b"\xff\x00\xff" + whole[33:],
    }
    path.write_bytes(broken[damage])
    with pytest.raises(DataError, match=r"train\.jsonl\.gz"):
        read_all(path)


def test_t82_a_gzip_file_streams_like_a_plain_one(tmp_path, read_all):
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(GOOD).encode()))
    assert replies(read_all(path)) == ["a0", "a1", "a2"]


def test_t82_a_pipe_is_refused_and_not_waited_for(tmp_path, read_all):
    path = tmp_path / "train.jsonl"
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):
        read_all(path)


def test_t82_a_link_is_followed_and_one_that_leads_nowhere_is_refused(tmp_path, read_all):
    link = tmp_path / "link.jsonl"
    link.symlink_to(write(tmp_path / "train.jsonl", GOOD))
    assert replies(read_all(link)) == ["a0", "a1", "a2"]
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match="leads nowhere"):
        read_all(link)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.jsonl", b""),
        ("b.jsonl", b"\n \r\n"),
        ("c.json", b"[]"),
        ("d.json", b""),
        ("e.csv", b"prompt,completion\n"),
        ("f.txt", b"\n\n"),
    ],
)
def test_t82_a_source_without_a_row_is_refused(tmp_path, read_all, name, raw):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match="0 rows"):
        read_all(tmp_path / name)


def test_a_file_level_error_is_raised_before_the_first_row_is_asked_for(tmp_path, make_source):
    with pytest.raises(DataError, match="no such file"):
        read_source(make_source(str(tmp_path / "none.jsonl")), source_index=0, first_index=0)


def test_rows_are_numbered_on_from_first_index(tmp_path, make_source):
    source = make_source(str(with_bad(tmp_path, "oops")))
    rows = list(read_source(source, source_index=2, first_index=40))
    assert [(row.index, row.source) for row in rows] == [(40, 2), (41, 2), (42, 2), (43, 2)]


def test_max_samples_counts_usable_rows_only(tmp_path, read_all):
    rows = read_all(with_bad(tmp_path, "oops"), max_samples=3)
    assert [type(row).__name__ for row in rows] == ["Row", "Row", "Rejected", "Row"]
    assert len(read_all(with_bad(tmp_path, "oops"), max_samples=2)) == 2
    assert isinstance(rows[0].content, Conversation)
