"""The YAML reader: what it refuses, quickly and with a line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from burnish.errors import UsageError
from burnish.recipe.document import MAX_BYTES, parse_document, read_document

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "saw"),
    [
        ("a: 1\nb: !!python/object/apply:os.system ['touch X']", "doc:2: the tag"),
        ("a: !!str 1", "doc:1: the tag"),
        ("a: !include x.yaml", "doc:1: the tag"),
        ("a: 1\nb: 2\na: 3", "doc:3: the key 'a' a second time (first on line 1)"),
        ("a:\n  b: 1\n  b: 2", "doc:3: the key 'b' a second time (first on line 2)"),
        ("? [1, 2]\n: 3", "doc:1: a key that is not a plain word"),
        (LAUGHS, "aliases or lists that grow too large"),
        ("a: &a [*a]", "aliases or lists that grow too large"),
        ("a: &a {b: *a}", "aliases or lists that grow too large"),
        ("- x\n" * 200_000, "more than 20,000 values"),
        ("[" * 20_000, "levels of nesting"),
        ("a: " + "{a: " * 20_000, "levels of nesting"),
        ("- " * 20_000, "levels of nesting"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: [1", "doc:1: expected ',' or ']'"),
        ("a: 1\n\tb: 2", "doc:2: found character '\\t'"),
        ("a: *nowhere", "doc:1: found undefined alias"),
        ("a: 1\n---\nb: 2", "doc:2: but found another document"),
        ("a: \x00", "doc: unacceptable character #x0000"),
        ("a: 'open", "found unexpected end of stream"),
    ],
)
def test_yaml_with_surprises_is_refused_with_its_line(text: str, saw: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_document(text, "doc")
    assert saw in caught.value.saw


def test_only_the_words_of_yaml_1_2_are_booleans_and_numbers() -> None:
    text = "[true, no, on, 010, 1:30, 2024-01-01, 1e3, .5, 0x1f, ~, '', null, <<, =]"
    assert parse_document(text, "doc").value == [
        True, "no", "on", 10, "1:30", "2024-01-01", 1000.0, 0.5, "0x1f", None, "", None, "<<", "=",
    ]  # fmt: skip


def test_every_place_has_its_line_and_every_scalar_its_text() -> None:
    document = parse_document("a: 1e3\nb:\n- x\n- c: 010\n", "doc")
    assert document.lines[("b",)] == 2
    assert document.lines[("b", 1, "c")] == 4
    assert document.texts[("a",)] == "1e3"
    assert document.texts[("b", 1, "c")] == "010"


def test_a_byte_order_mark_and_windows_line_ends_are_read_as_if_they_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("\ufeffmodel: é\r\nseed: 1\r\n".encode())
    assert read_document(path).value == {"model": "é", "seed": 1}


def test_files_that_are_not_small_regular_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9\n")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, saw in {
        "big.yaml": "larger than 1,000,000 bytes",
        "latin.yaml": "byte 10 is not UTF-8",
        "folder.yaml": "not a regular file",
        "pipe.yaml": "not a regular file",
        "none.yaml": "no such file",
        "long" * 2000: "no such file",
        "nul\0": "no such file",
    }.items():
        with pytest.raises(UsageError) as caught:
            read_document(tmp_path / name)
        assert saw in caught.value.saw


def test_a_missing_recipe_comes_with_the_ones_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("")
    with pytest.raises(UsageError) as caught:
        read_document(tmp_path / "trian.yaml")
    assert "train.yaml" in caught.value.remedy


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        parse_document(text, "doc")
    except UsageError as error:
        assert error.saw.startswith("doc")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_json_holds_is_read_back_from_yaml_with_every_text_quoted(value: object) -> None:
    text = yaml.safe_dump(value, default_style='"', allow_unicode=False)
    quoted = value is None or not isinstance(value, (list, dict, str))
    if not quoted and "!!" not in text:
        assert parse_document(text, "doc").value == value
