from __future__ import annotations

import pytest

from burnish.data import hub
from burnish.errors import DataError


def test_rows_of_a_split_are_numbered_and_nulls_taken_away(monkeypatch, read_all):
    asked = []

    def load(name, *, split, streaming):
        asked.append((name, split, streaming))
        return iter([{"text": "a", "label": None}, {"text": "b", "label": None}])

    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    rows = read_all("someone/texts", split="validation")
    assert [(str(row.origin), row.content.text) for row in rows] == [
        ("someone/texts:1", "a"),
        ("someone/texts:2", "b"),
    ]
    assert asked == [("someone/texts", "validation", True)]


@pytest.mark.parametrize(
    "error", [ConnectionError("no network\nmore"), ValueError("Unknown split"), RuntimeError("x")]
)
def test_a_hub_that_does_not_answer_is_an_error_with_the_name_and_split(monkeypatch, read_all, error):
    def load(name, *, split, streaming):
        raise error

    monkeypatch.setattr(hub.datasets, "load_dataset", load)
    with pytest.raises(DataError, match="someone/texts: split 'train'") as caught:
        read_all("someone/texts")
    assert "\n" not in caught.value.saw


def test_a_hub_that_breaks_off_is_an_error_that_names_the_row(monkeypatch, read_all):
    def rows():
        yield {"text": "a"}
        raise OSError("connection reset")

    monkeypatch.setattr(hub.datasets, "load_dataset", lambda name, *, split, streaming: rows())
    with pytest.raises(DataError, match="row 2: OSError: connection reset"):
        read_all("someone/texts")


@pytest.mark.parametrize(
    "path", ["./missing", "/tmp/missing-folder", "a/b/c", "missing.jsonl", "data/x.parquet"]
)
def test_a_path_that_can_only_be_a_file_is_not_asked_for_at_the_hub(monkeypatch, read_all, path):
    monkeypatch.setattr(hub.datasets, "load_dataset", lambda *args, **kwargs: pytest.fail("asked the hub"))
    with pytest.raises(DataError, match="no such file"):
        read_all(path)
