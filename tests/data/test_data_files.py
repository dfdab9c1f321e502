from __future__ import annotations

import os

import pytest

from burnish.data.files import find_files, name_of, read_lines, suffix_of
from burnish.errors import DataError


def test_a_missing_file_is_refused_with_its_neighbours(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(DataError, match="no such file") as caught:
        find_files(str(tmp_path / "trian.jsonl"))
    assert "train.jsonl" in caught.value.remedy
    with pytest.raises(DataError) as caught:
        find_files(str(tmp_path / "nowhere" / "train.jsonl"))
    assert "does not exist either" in caught.value.remedy


def test_a_glob_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="0 files match"):
        find_files(str(tmp_path / "*.jsonl"))


def test_a_glob_goes_into_folders_and_is_sorted(tmp_path):
    for name in ("b/2.jsonl", "a/1.jsonl", "a/b/3.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = find_files(str(tmp_path / "**" / "*.jsonl"))
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a/1.jsonl",
        "a/b/3.jsonl",
        "b/2.jsonl",
    ]


def test_a_file_whose_name_holds_glob_signs_is_itself(tmp_path):
    path = tmp_path / "part[1].jsonl"
    path.write_text("{}")
    assert find_files(str(path)) == [path]


def test_a_folder_without_data_and_an_archive_are_refused(tmp_path):
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(DataError, match="without a data file"):
        find_files(str(tmp_path))
    (tmp_path / "rows.zip").write_text("")
    with pytest.raises(DataError, match=r"'\.zip'"):
        find_files(str(tmp_path / "rows.zip"))
    with pytest.raises(DataError, match=r"'\.zip'"):
        find_files(str(tmp_path / "*.zip"))
    with pytest.raises(DataError, match="NUL"):
        find_files("a\0b.jsonl")


def test_an_ending_is_known_whatever_its_case(tmp_path):
    assert suffix_of(tmp_path / "A.JSONL.GZ") == ".jsonl.gz"
    assert suffix_of(tmp_path / "a.json") == ".json"
    assert suffix_of(tmp_path / "a.tar.gz") == ""


def test_a_name_of_odd_bytes_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    path.write_bytes(b"{}\n")
    assert name_of(path).endswith("caf\\xe9.jsonl")
    name_of(path).encode()
    assert list(read_lines(path)) == [(1, b"{}\n")]
