"""A save is cut at every place there is: what was saved before is there, and the next save goes through."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from burnish.checkpoint import faults, tensors
from burnish.checkpoint.files import (
    MANIFEST,
    Checkpoint,
    load_checkpoint,
    newest_good,
    prune,
    sweep,
    verify,
    write_checkpoint,
)
from burnish.errors import BurnishError

FILES = ("weights.safetensors", "optimizer.safetensors", "state.json", MANIFEST)
PLACES = [f"{what}:{name}" for name in FILES for what in ("open", "write", "flush")]
PLACES += ["draft", "rename", "folder", "trash", "unlink"]


def save(folder: Path, step: int) -> Path:
    weights, moments = torch.full((3, 4), float(step)), torch.full((3, 4), step / 2)
    return write_checkpoint(
        folder, Checkpoint(step, {"w": weights}, {"w/exp_avg": moments}, {"tokens": step})
    )


def save_and_rotate(folder: Path, step: int) -> None:
    save(folder, step)
    prune(folder, keep=1, protect={step})


def in_a_child(fault: str, folder: Path, step: int) -> int:
    """The signal that ended a child which saved and rotated with a fault planted."""
    child = os.fork()
    if child == 0:
        os.environ["BURNISH_FAULT"] = fault
        faults.forget()
        try:
            save_and_rotate(folder, step)
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_place_of_a_save_the_newest_good_checkpoint_is_whole_and_at_most_one_save_old(
    place: str, tmp_path: Path
) -> None:
    save(tmp_path, 1)
    assert in_a_child(f"kill@{place}:1", tmp_path, 2) == signal.SIGKILL
    found, complaints = newest_good(tmp_path)
    assert found is not None and not complaints
    assert found.step == (2 if place in ("folder", "trash", "unlink") else 1)
    assert torch.equal(found.weights["w"], torch.full((3, 4), float(found.step)))
    sweep(tmp_path)
    save_and_rotate(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    verify(tmp_path / "step-00000002")


@pytest.mark.parametrize("number", ["ENOSPC", "EIO", "EROFS", "EDQUOT"])
def test_whichever_write_the_disk_refuses_the_checkpoint_before_stays_and_the_error_names_path_and_bytes(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "CHUNK", 16)
    save(tmp_path, 1)
    failed = 0
    for count in range(1, 40):
        faults.forget()
        monkeypatch.setenv("BURNISH_FAULT", f"{number}@write:{count}")
        try:
            save(tmp_path, 2)
        except BurnishError as error:
            failed += 1
            assert str(tmp_path) in error.saw and "96 bytes" in error.saw
            assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
        else:
            break
    monkeypatch.delenv("BURNISH_FAULT")
    assert failed >= 8  # header and three parts of each tensor file, state, manifest
    assert load_checkpoint(tmp_path / "step-00000002").step == 2


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(
        "burnish.checkpoint.space.shutil.disk_usage", lambda path: type("U", (), {"free": 10})
    )
    with pytest.raises(BurnishError, match="10 bytes are free"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_damaged_checkpoint_makes_way_for_the_same_step_and_a_good_one_stays(tmp_path: Path) -> None:
    good = save(tmp_path, 3)
    before = (good / MANIFEST).stat().st_ino
    save(tmp_path, 3)
    assert (good / MANIFEST).stat().st_ino == before
    (good / "state.json").write_text("{}")
    save(tmp_path, 3)
    assert load_checkpoint(good).step == 3
