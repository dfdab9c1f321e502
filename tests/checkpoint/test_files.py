"""A checkpoint is there whole or not at all, and a damaged one is never believed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from burnish.checkpoint.files import (
    list_checkpoints,
    load_checkpoint,
    newest_good,
    prune,
    save_checkpoint,
)
from burnish.errors import DataError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3)}
STATE = {"best_loss": 0.5, "best_step": 2}


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(
        folder, step, weights=WEIGHTS, optimizer={"a.weight/exp_avg": torch.ones(2, 3)}, state=STATE
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, 3))
    assert loaded.step == 3
    assert torch.equal(loaded.weights["a.weight"], WEIGHTS["a.weight"])
    assert torch.equal(loaded.optimizer["a.weight/exp_avg"], torch.ones(2, 3))
    assert loaded.state == {"step": 3, **STATE}


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_one_flipped_bit_is_seen_and_the_checkpoint_before_is_used(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=name):
        load_checkpoint(path.parent)
    found, complaints = newest_good(tmp_path)
    assert found is not None and found.step == 1
    assert name in complaints[0]


def test_a_missing_or_shortened_file_is_seen(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "optimizer.safetensors").unlink()
    weights = save(tmp_path, 2) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    found, complaints = newest_good(tmp_path)
    assert found is None
    assert len(complaints) == 2


def test_a_directory_that_a_kill_left_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".tmp-00000009-1").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]


def test_pruning_never_deletes_the_protected(tmp_path: Path) -> None:
    for step in (2, 10, 9, 100):
        save(tmp_path, step)
    prune(tmp_path, keep=2, protect={2, 100})
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002", "step-00000100"]
