"""Rows that are read twice and encoded by segments are the rows of one that was read at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.data import rows as data_rows
from burnish.data.keys import drawn_apart, first_of_each, keys_of
from burnish.data.ledger import Ledger
from burnish.data.rows import read_rows
from burnish.data.split import content_key, drop_duplicates, hold_out
from burnish.errors import DataError
from burnish.recipe.load import load_recipe
from burnish.training import building
from burnish.training.appended import segment_keys
from burnish.training.certificate import Certified, build_share, certify, recipe_tokenizer
from burnish.training.key import key_parts
from burnish.training.vault import vault
from burnish.types import Document, Origin, Row
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[..., Path]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))


def documents(texts: list[str]) -> list[Row]:
    return [Row(k, 0, Origin("a.jsonl", k + 1), Document(text)) for k, text in enumerate(texts)]


@given(st.lists(st.text("ab", max_size=3), max_size=40))
def test_the_first_of_each_key_is_the_row_that_stays_of_its_content(texts: list[str]) -> None:
    rows = documents(texts)
    first = first_of_each(keys_of(b"".join(map(content_key, rows)))).tolist()
    stays = [row.index for row in drop_duplicates(rows, _counted(len(rows)))]
    assert [k for k, original in enumerate(first) if k == original] == stays
    assert [texts[k] for k in first] == texts


@given(st.integers(2, 60), st.sampled_from([0, 1, 0.1, 0.5, 0.99]), st.integers(0, 5))
def test_what_is_drawn_by_keys_is_what_is_held_out_of_rows(number: int, size: float, seed: int) -> None:
    rows = documents([f"text {k}" for k in range(number)])
    drawn = drawn_apart(keys_of(b"".join(map(content_key, rows))), size, seed=seed)
    assert [row for row, apart in zip(rows, drawn, strict=True) if apart] == hold_out(rows, size, seed=seed)[
        1
    ]


def _counted(rows: int) -> Ledger:
    ledger = Ledger()
    ledger.count_read(rows)
    return ledger


@pytest.fixture
def recipe(model_directory: ModelDirectory, tmp_path: Path) -> Any:
    """Four sources with a duplicate, a broken line, a row too long, a held-out source, replay and drawn rows."""
    asked = [conversation(k) for k in range(30)]
    long = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "on " * 300}]}
    main = write_jsonl(tmp_path / "main.jsonl", [*asked[:9], asked[2], *asked[9:20], long])
    with main.open("a") as file:
        file.write("{broken\n" + json.dumps(asked[20]) + "\n")
    apart = write_jsonl(tmp_path / "apart.jsonl", [asked[4], *asked[21:24]])
    text = write_jsonl(tmp_path / "text.jsonl", [{"text": f"The {word} is long. " * 9} for word in "abcdef"])
    return load_recipe(
        None,
        {
            "model": str(model_directory()),
            "datasets": [str(main), {"path": str(apart), "held_out": True}],
            "replay": {"path": str(text), "share": 0.3, "max_length": 20},
            "val_set_size": 5,
            "max_length": 128,
            "on_bad_row": "drop",
        },
    ).recipe


def stored(certified: Certified) -> dict[str, bytes]:
    place = certified.path.parent
    names = [
        "ledger.jsonl",
        "origins.json",
        *(f"{s}/{p.name}" for s in building.SIDES for p in (place / s).iterdir()),
    ]
    return {name: (place / name).read_bytes() for name in names}


def in_segments_of(rows: int, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(data_rows, "SEGMENT_ROWS", rows)
    monkeypatch.setenv("BURNISH_CACHE", str(cache))


@pytest.mark.parametrize("segment", [1, 7, 12])
def test_segments_of_any_size_give_the_same_bytes(
    segment: int, recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = certify(recipe)
    in_segments_of(segment, monkeypatch, tmp_path / "other")
    parts = certify(recipe)
    assert not parts.reused and stored(parts) == stored(whole)
    # the row that is held out by its source is gone from the training data, as the one that is there twice
    assert whole.certificate.refused == {"duplicate": 2, "broken JSON": 1, "too long": 1}
    assert {parts.certificate.key, parts.certificate.tokens} == {
        whole.certificate.key,
        whole.certificate.tokens,
    }
    assert parts.certificate.unusual == whole.certificate.unusual
    assert not [path for path in vault().iterdir() if path.name.startswith(".")]


def test_a_build_that_was_cut_short_goes_on_with_what_it_finished_and_ends_in_the_same_bytes(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = certify(recipe)
    in_segments_of(6, monkeypatch, tmp_path / "other")
    encode, made = building._encode, []

    def cut(segment: Any, *rest: Any) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(segment.number)
        encode(segment, *rest)

    monkeypatch.setattr(building, "_encode", cut)
    with pytest.raises(KeyboardInterrupt):
        certify(recipe)
    (parts,) = vault().glob(".parts-*")
    harmed = parts / "000001" / "train" / "ids"
    harmed.write_bytes(harmed.read_bytes()[:-4])  # a segment that a failing disk changed is made again
    made[:] = ["so that no more than these is cut"] * 4
    monkeypatch.setattr(
        building, "_encode", lambda segment, *rest: (made.append(segment.number), encode(segment, *rest))
    )
    again = certify(recipe)
    assert made[4:6] == [1, 3] and 0 not in made and 2 not in made
    assert stored(again) == stored(whole)


def test_parts_built_by_two_are_joined_by_a_third(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = certify(recipe)
    in_segments_of(5, monkeypatch, tmp_path / "other")
    encode, made = building._encode, []
    monkeypatch.setattr(
        building, "_encode", lambda segment, *rest: (made.append(segment.number), encode(segment, *rest))
    )
    assert build_share(recipe, (1, 2)) == build_share(recipe, (0, 2)) > 4
    assert made[:3] == [1, 3, 5] and sorted(made) == list(range(len(made)))
    joined = certify(recipe)
    assert sorted(made) == list(range(len(made))) and stored(joined) == stored(whole)


@pytest.mark.parametrize(("size", "held_out"), [(4, 0), (7, 0), (6, 3)])
def test_rows_that_are_added_are_all_that_is_encoded_and_the_store_is_that_of_one_built_whole(
    size: int, held_out: int, tmp_path: Path, model_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [conversation(k) for k in range(40)]
    rows = [*asked[:9], asked[2], *asked[9:20], *asked[5:7], *asked[20:33]]
    data = write_jsonl(tmp_path / "main.jsonl", rows)
    keys = {"model": str(model_directory()), "datasets": str(data), "val_set_size": held_out}
    told: list[tuple[int, int]] = []
    made: list[int] = []
    encode = building._encode
    monkeypatch.setattr(
        building, "_encode", lambda segment, *rest: (made.append(segment.number), encode(segment, *rest))
    )

    def built(cache: str) -> tuple[Certified, list[int]]:
        monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / cache))
        made[:], told[:] = [], []
        certified = certify(load_recipe(None, keys).recipe, progress=lambda *now: told.append(now))
        return certified, sorted(made)

    monkeypatch.setattr(data_rows, "SEGMENT_ROWS", size)
    assert built("grown")[1] == [*range(-(-len(rows) // size))]
    whole = len(rows) // size
    rows += [*asked[33:], asked[3], asked[35]]
    write_jsonl(data, rows)
    grown, again = built("grown")
    begun, ended = told[0], told[-1]
    one, all_of_them = built("fresh")
    assert all_of_them == [*range(-(-len(rows) // size))]
    # rows that are drawn to the other side change their own segments too, and no others
    assert again == [*range(whole, len(all_of_them))] if not held_out else len(again) < len(all_of_them)
    assert stored(grown) == stored(one) and grown.certificate.tokens == one.certificate.tokens
    assert grown.certificate.graded_stop_ids == one.certificate.graded_stop_ids
    same = {path.name: path.read_bytes() for path in (grown.path.parent / "segments").iterdir()}
    assert same == {path.name: path.read_bytes() for path in (one.path.parent / "segments").iterdir()}
    # progress begins with what is there already, and ends with all rows
    assert 0 < begun[0] < begun[1] == ended[1] == ended[0] == told[-1][0]


def test_of_a_damaged_store_no_segment_is_taken_over(
    tmp_path: Path, model_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_rows, "SEGMENT_ROWS", 4)
    data = write_jsonl(tmp_path / "main.jsonl", [conversation(k) for k in range(12)])
    keys = {"model": str(model_directory()), "datasets": str(data)}
    first = certify(load_recipe(None, keys).recipe)
    harmed = first.path.parent / "train" / "ids"
    harmed.write_bytes(bytes([harmed.read_bytes()[0] ^ 1]) + harmed.read_bytes()[1:])
    write_jsonl(data, [conversation(k) for k in range(16)])
    grown = certify(load_recipe(None, keys).recipe)
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "fresh"))
    assert stored(grown) == stored(certify(load_recipe(None, keys).recipe))


def test_what_an_encoding_hangs_on_makes_another_segment(
    tmp_path: Path, model_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_rows, "SEGMENT_ROWS", 4)
    data = write_jsonl(tmp_path / "main.jsonl", [conversation(k) for k in range(8)])

    def keys_with(**options: Any) -> list[str]:
        recipe = load_recipe(None, {"model": str(model_directory()), "datasets": str(data), **options}).recipe
        parts = key_parts(recipe, recipe_tokenizer(recipe))
        return segment_keys(read_rows(recipe), parts)

    plain = keys_with()
    assert keys_with(num_epochs=3) == plain and len(set(plain)) == 2
    assert keys_with(seed=5) == plain  # nothing is drawn
    assert not set(keys_with(max_length=64)) & set(plain)
    assert not set(keys_with(train_on="last")) & set(plain)
    assert not set(keys_with(datasets=[{"path": str(data), "weight": 0.5}])) & set(plain)
    held_out = keys_with(val_set_size=1)
    assert sum(one != other for one, other in zip(held_out, plain, strict=True)) == 1
    first = data.read_text().splitlines()
    data.write_text("\n".join([first[1], first[0], *first[2:]]) + "\n")
    assert [one == other for one, other in zip(keys_with(), plain, strict=True)] == [False, True]


def test_a_file_that_changes_between_two_readings_is_refused(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_rows, "SEGMENT_ROWS", 4)
    rows = read_rows(recipe)
    main = tmp_path / "main.jsonl"
    main.write_text(main.read_text().replace("number 3.", "number 3!"))
    with pytest.raises(DataError, match=r"main\.jsonl:4"):
        list(rows.segments())
