from __future__ import annotations

import pytest

from burnish.errors import DataError


def written(tmp_path, raw, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


def test_cells_are_kept_to_the_character_and_a_row_stands_where_it_begins(tmp_path, read_all):
    raw = 'prompt,completion\r\n"say ""a"",\r\n b","c\u2028d"\r\n\r\n p ,  c  \r\n'
    rows = read_all(written(tmp_path, raw))
    assert [(row.content.prompt, row.content.completion) for row in rows] == [
        ('say "a",\r\n b', "c\u2028d"),
        (" p ", "  c  "),
    ]
    assert [row.origin.line for row in rows] == [2, 5]


def test_a_bom_and_a_tab_separated_table_are_read(tmp_path, read_all):
    assert read_all(written(tmp_path, b"\xef\xbb\xbftext\na\n"))[0].content.text == "a"
    assert read_all(written(tmp_path, "prompt\tcompletion\np,q\tc\n", "a.tsv"))[0].content.prompt == "p,q"


def test_turns_may_be_a_json_string_in_a_cell(tmp_path, read_all):
    cell = '[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""a""}]'
    row = read_all(written(tmp_path, f'messages\n"{cell}"\n'))[0]
    assert [message["content"] for message in row.content.messages] == ["q", "a"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"one", "broken CSV"),
        (b"1,2,3", "broken CSV"),
        (b'"a"b,c', "broken CSV"),
        (b"caf\xe9,c", "invalid UTF-8"),
    ],
)
def test_a_bad_row_is_rejected_at_its_line(tmp_path, read_all, bad, reason):
    rows = read_all(written(tmp_path, b"prompt,completion\np,c\n" + bad + b"\nq,d\n"))
    assert [type(row).__name__ for row in rows] == ["Row", "Rejected", "Row"]
    assert (rows[1].reason, rows[1].origin.line) == (reason, 3)
    assert rows[2].content.prompt == "q"


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ('prompt,completion\np,"c\nq,d\n', "2: a quote opens"),
        ("text,text\na,b\n", "'text' stands twice"),
        ("\ntext\na\n", "first line is blank"),
        ('"te"xt\na\n', "1: "),
        ("text\n" + "x" * 2_000 + "\n", "line too long"),
    ],
)
def test_a_table_that_cannot_be_read_row_by_row_is_refused(tmp_path, read_all, raw, seen):
    with pytest.raises(DataError, match=seen):
        read_all(written(tmp_path, raw), max_line_bytes=1_000)


def test_a_cell_of_many_lines_has_a_limit_too(tmp_path, read_all):
    rows = read_all(
        written(tmp_path, 'text\n"' + "x" * 99 + "\n" + "x" * 99 + '"\n' + "a\n"), max_line_bytes=150
    )
    assert rows[0].reason == "broken CSV"
