"""What was encoded comes back as it was, from memory or from disk, and a damaged file is never taken for whole."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.data import store
from burnish.data.store import RowsWriter, StoredOrigins, map_rows, opened, seal
from burnish.errors import DataError
from burnish.types import Document, Example, Origin, Row

weights = st.sampled_from([0.0, 1.0, 0.1, -2.5, 1 / 3, 1e-300])


@st.composite
def examples(draw: st.DrawFn) -> Example:
    length = draw(st.integers(1, 12))
    return Example(
        row=draw(st.integers(0, 2**40)),
        source=draw(st.integers(0, 9)),
        turns=tuple(draw(st.lists(st.integers(0, 99), max_size=3))),
        input_ids=draw(st.lists(st.integers(0, 2**31 - 1), min_size=length, max_size=length)),
        weights=draw(st.lists(weights, min_size=length, max_size=length)),
        cut=draw(st.integers(0, 5)),
    )


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.lists(examples(), min_size=1, max_size=3), max_size=8), flush=st.integers(0, 30))
def test_rows_come_back_equal_from_memory_and_from_disk(rows: list[list[Example]], flush: int) -> None:
    expected = [tuple(views) for views in rows]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "FLUSH_ITEMS", flush)
        for place in (None, Path(folder) / "rows"):
            writer = RowsWriter(place)
            for views in rows:
                writer.append(views)
            stored = writer.finish()
            assert list(stored) == expected
            assert stored[:2] == expected[:2]
            assert [stored[-k - 1] for k in range(len(rows))] == expected[::-1]
            flat = [view for views in rows for view in views]
            assert list(stored.views()) == flat
            assert (stored.num_views, stored.num_tokens) == (len(flat), sum(map(len, flat)))
            assert stored.num_graded == sum(view.num_graded for view in flat)
            assert stored.lengths.tolist() == [len(view) for view in flat]


def example(ids: list[int], weights: list[float]) -> Example:
    return Example(0, 0, (1,), ids, weights)


def test_the_digest_tells_ids_weights_and_the_bounds_of_views_apart() -> None:
    sets = [
        [[example([1, 2, 3], [0, 1, 1])]],
        [[example([1, 2, 4], [0, 1, 1])]],
        [[example([1, 2, 3], [0, 0, 1])]],
        [[example([1, 2], [0, 1]), example([3], [1])]],
        [[example([1, 2], [0, 1])], [example([3], [1])]],
    ]
    digests = set()
    for rows in sets:
        writer = RowsWriter()
        for views in rows:
            writer.append(views)
        digests.add(writer.finish().digest())
    assert len(digests) == 5


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    writer = RowsWriter(folder / "train")
    writer.append([example([5, 6, 7], [0.0, 1.0, 1.0])])
    writer.finish()
    seal(folder, {"key": "k"})
    return folder


def test_a_sealed_folder_opens_with_what_was_said_about_it(sealed: Path) -> None:
    assert opened(sealed)["key"] == "k"
    assert map_rows(sealed / "train")[0] == (example([5, 6, 7], [0.0, 1.0, 1.0]),)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_file_is_seen(sealed: Path, harm: str) -> None:
    ids = sealed / "train" / "ids"
    data = bytearray(ids.read_bytes())
    match harm:
        case "flip":
            data[4] ^= 1
            ids.write_bytes(data)
        case "truncate":
            ids.write_bytes(data[:-1])
        case "remove":
            ids.unlink()
        case "manifest":
            (sealed / "MANIFEST.json").write_text("{")
    with pytest.raises(DataError, match=r"train/ids|MANIFEST|kept"):
        opened(sealed)


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from("ab"), st.integers(1, 9)), unique_by=lambda t: t[0]
    )
)
def test_origins_come_back_for_the_rows_there_were_and_no_others(places: list[tuple[int, str, int]]) -> None:
    rows = [Row(index, 0, Origin(file, line), Document("x")) for index, file, line in places]
    origins = StoredOrigins(StoredOrigins.of(rows).as_list())
    assert dict(origins) == {row.index: row.origin for row in rows}
    assert len(origins) == len(rows)
    assert all((index in origins) == (index in {row.index for row in rows}) for index in range(-1, 70))


def test_a_run_of_rows_is_one_entry() -> None:
    rows = [Row(k, 0, Origin("a.jsonl", k + 1), Document("x")) for k in range(1000)]
    assert StoredOrigins.of(rows).as_list() == [(0, 1000, "a.jsonl", 1)]
