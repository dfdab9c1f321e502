"""Between reading and training nothing vanishes: what is cut, dropped or windowed is accounted for, token by token."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.data.prepare import Prepared, windows
from burnish.errors import DataError
from burnish.recipe.load import load_recipe
from burnish.training.session import encode_recipe
from burnish.types import Example
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[..., Path]


def prepared(model: Path, data: Any, **keys: Any) -> Prepared:
    return encode_recipe(load_recipe(None, {"model": str(model), "datasets": data, **keys}).recipe)[1]


def lengths(data: Prepared) -> list[int]:
    return [len(view) for views in data.train for view in views]


@given(st.integers(2, 200), st.integers(2, 40))
def test_a_long_text_is_graded_once_token_by_token_whatever_the_window(num_tokens: int, length: int) -> None:
    text = Example(0, 0, (), list(range(num_tokens)), [0.0] + [1.0] * (num_tokens - 1))
    cut = windows(text, length)
    graded = [token for w in cut for token, weight in zip(w.input_ids, w.weights, strict=True) if weight]
    assert graded == list(range(1, num_tokens))
    assert all(len(w) <= length and w.weights[0] == 0.0 for w in cut)
    for window in cut:
        assert window.input_ids == list(range(window.input_ids[0], window.input_ids[0] + len(window)))


def test_a_row_that_is_too_long_is_dropped_cut_or_refused_as_the_recipe_says(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    long = {"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "on " * 200}]}
    data = str(write_jsonl(tmp_path / "long.jsonl", [conversation(0), long]))
    model = model_directory()
    dropped = prepared(model, data, max_length=64)
    assert dropped.ledger.counts()["dropped"] == {"too long": 1}

    cut = prepared(model, data, max_length=64, on_too_long="cut_answer")
    assert cut.ledger.counts()["cut"] == {"too long": 1}
    view = cut.train[1][0]
    (entry,) = cut.ledger.entries()
    whole = prepared(model, data, max_length=4096).train[1][0]
    assert len(view) == 64
    assert entry.graded_tokens_lost == view.cut == whole.num_graded - view.num_graded
    assert view.input_ids == whole.input_ids[:64]

    with pytest.raises(DataError, match=r"long\.jsonl:2.*max_length 64"):
        prepared(model, data, max_length=64, on_too_long="error")


def test_a_source_weight_multiplies_every_graded_token_of_its_rows(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    one = str(write_jsonl(tmp_path / "one.jsonl", [conversation(0)]))
    two = str(write_jsonl(tmp_path / "two.jsonl", [conversation(1)]))
    data = prepared(model_directory(), [{"path": one}, {"path": two, "weight": 0.25}])
    weights = [{w for view in views for w in view.weights} for views in data.train]
    assert weights == [{0.0, 1.0}, {0.0, 0.25}]


def test_a_row_of_the_validation_data_is_never_trained_on(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    train = str(write_jsonl(tmp_path / "train.jsonl", [conversation(i) for i in range(6)]))
    held = str(write_jsonl(tmp_path / "held.jsonl", [conversation(i) for i in (4, 5, 6)]))
    data = prepared(model_directory(), train, val_datasets=held)
    assert (len(data.train), len(data.held_out)) == (4, 3)
    trained = {tuple(v.input_ids) for v in chain.from_iterable(data.train)}
    assert not trained & {tuple(v.input_ids) for v in chain.from_iterable(data.held_out)}
    assert data.ledger.counts()["dropped"] == {"duplicate": 2}


def test_plain_text_has_every_token_graded_and_one_end(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "text.jsonl", [{"text": "The sun is bright. " * 40}])
    data = prepared(model_directory(), str(path), max_length=32)
    assert max(lengths(data)) <= 32
    views = [view for views in data.train for view in views]
    total = sum(view.num_graded for view in views)
    ids = [i for view in views for i, w in zip(view.input_ids, view.weights, strict=True) if w]
    assert total == len(ids)
    assert ids.count(0) == 1 and ids[-1] == 0  # <|endoftext|>, once, at the very end


def test_the_fingerprint_tells_other_data_and_other_weights_apart(
    model_directory: ModelDirectory, data_file: Path
) -> None:
    model, path = model_directory(), str(data_file)
    first = prepared(model, path).fingerprint()
    assert prepared(model, path).fingerprint() == first
    assert prepared(model, [{"path": path, "weight": 2.0}]).fingerprint() != first
    assert prepared(model, [{"path": path, "max_samples": 39}]).fingerprint() != first
