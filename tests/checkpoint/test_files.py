"""A checkpoint is there whole or not at all, and a damaged one is never believed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from burnish.checkpoint import faults, space
from burnish.checkpoint import files as checkpoint_files
from burnish.checkpoint.files import (
    MANIFEST,
    OPTIMIZER,
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    named,
    newest_good,
    prune,
    step_of,
    sweep,
    verify,
    write_checkpoint,
)
from burnish.checkpoint.files import STATE as STATE_FILE
from burnish.checkpoint.files import WEIGHTS as WEIGHTS_FILE
from burnish.errors import BurnishError, DataError, Diverged

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3)}
STATE = {"best_loss": 0.5, "best_step": 2}


def save(folder: Path, step: int) -> Path:
    return write_checkpoint(folder, Checkpoint(step, WEIGHTS, {"a.weight/exp_avg": torch.ones(2, 3)}, STATE))


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


def test_the_newest_below_a_step_and_never_that_step_itself(tmp_path: Path) -> None:
    for step in (2, 5, 9):
        save(tmp_path, step)
    assert [step_of(path) for path in named(tmp_path)] == [2, 5, 9]
    found = [newest_good(tmp_path, below=below)[0] for below in (None, 10, 9, 5, 3, 2)]
    assert [one and one.step for one in found] == [9, 9, 5, 2, 2, None]


@pytest.mark.parametrize("keep", range(5))
def test_as_many_are_kept_as_was_said_the_newest_of_them(tmp_path: Path, keep: int) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    prune(tmp_path, keep=keep, protect=set())
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [1, 2, 3, 4][4 - keep :]
    assert not list(tmp_path.glob(".*"))


def test_the_protected_count_among_those_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    prune(tmp_path, keep=3, protect={1})
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == [1, 3, 4]


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".tmp-00000002-9", ".trash-step-00000000-9", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "step-00000001"]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"step": 3}',
        b'{"step": 3, "files": {}}',
        b"[" * 100_000,
        b'{"files": {}}',
    ],
)
def test_a_manifest_that_burnish_did_not_write_is_blamed_itself(tmp_path: Path, said: bytes) -> None:
    path = save(tmp_path, 3)
    (path / MANIFEST).write_bytes(said)
    with pytest.raises(DataError, match=r"MANIFEST.json is not a manifest as burnish writes it"):
        verify(path)


def test_a_sealed_manifest_says_schema_step_sizes_and_hashes_and_must_name_the_three_files(
    tmp_path: Path,
) -> None:
    path = save(tmp_path, 3)
    said = json.loads((path / MANIFEST).read_bytes())
    assert (said["schema"], said["step"]) == (2, 3)
    assert said["files"] == {
        name: {
            "bytes": (path / name).stat().st_size,
            "sha256": hashlib.sha256((path / name).read_bytes()).hexdigest(),
        }
        for name in (WEIGHTS_FILE, OPTIMIZER, STATE_FILE)
    }
    for files in ({**said["files"], "more": {}}, {WEIGHTS_FILE: said["files"][WEIGHTS_FILE]}):
        (path / MANIFEST).write_bytes(checkpoint_files._manifest(3, files))
        with pytest.raises(DataError, match="not a manifest"):
            verify(path)
    (path / MANIFEST).write_bytes(checkpoint_files._manifest(4, said["files"]))
    with pytest.raises(DataError, match="is that of step 4"):
        verify(path)
    elsewhere = path.rename(tmp_path / "copy")  # by another name it may hold any step
    verify(elsewhere)


def test_a_damaged_file_is_named_with_what_is_wrong_with_it(tmp_path: Path) -> None:
    for step, harm, said in (
        (1, lambda path: path.unlink(), "state.json is missing"),
        (
            2,
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            r"state.json has \d+ bytes, and \d+ in its",
        ),
        (
            3,
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
            "state.json differs from its manifest",
        ),
    ):
        path = save(tmp_path, step)
        harm(path / STATE_FILE)
        for look in (verify, load_checkpoint):
            with pytest.raises(DataError, match=said):
                look(path)


def test_a_file_that_verifies_and_is_no_tensors_is_damaged_too(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / WEIGHTS_FILE).write_bytes(b"nothing")
    said = json.loads((path / MANIFEST).read_bytes())["files"]
    said[WEIGHTS_FILE] = {"bytes": 7, "sha256": hashlib.sha256(b"nothing").hexdigest()}
    (path / MANIFEST).write_bytes(checkpoint_files._manifest(1, said))
    with pytest.raises(DataError, match="step-00000001"):
        load_checkpoint(path)


def test_a_copy_has_numbers_of_its_own_and_a_size(tmp_path: Path) -> None:
    weight = torch.ones(3, 2)
    made = Checkpoint(4, {"w": weight}, {"w/m": torch.ones(5, dtype=torch.float64)}, {"tokens": 1})
    copied = made.copied()
    weight += 1
    copied.state["tokens"] = 2
    assert copied.step == 4 and torch.equal(copied.weights["w"], torch.ones(3, 2))
    assert made.state == {"tokens": 1}
    assert made.num_bytes == 24 + 40


@pytest.mark.parametrize(("name", "value"), [("w", float("nan")), ("w", float("inf")), ("m", float("-inf"))])
def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path, name: str, value: float) -> None:
    tensors = {"w": torch.ones(3), "m": torch.ones(3)}
    tensors[name][1] = value
    with pytest.raises(Diverged, match=f"step 6: {name} holds"):
        write_checkpoint(tmp_path, Checkpoint(6, {"w": tensors["w"]}, {"m": tensors["m"]}, {}))
    assert not list(tmp_path.iterdir())


def test_a_sum_too_large_for_its_format_is_no_reason_to_refuse_finite_numbers(tmp_path: Path) -> None:
    large, whole = torch.full((4,), 3e38), torch.tensor([1, 2])
    saved = write_checkpoint(tmp_path, Checkpoint(1, {"w": large, "k": whole}, {}, {}))
    assert torch.equal(load_checkpoint(saved).weights["w"], large)


def test_a_folder_that_is_not_there_yet_is_made_and_a_draft_left_behind_makes_way(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    left = folder / f".tmp-00000007-{os.getpid()}"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_text("half")
    assert load_checkpoint(save(folder, 7)).step == 7
    assert [path.name for path in folder.iterdir()] == ["step-00000007"]
    save(folder, 7)  # again, the same: it stays, and nothing is left of the second
    assert [path.name for path in folder.iterdir()] == ["step-00000007"]


def test_only_numbered_names_are_checkpoints(tmp_path: Path) -> None:
    for name in ("step-best", "step-00000003", "steps", "step-"):
        (tmp_path / name).mkdir()
    assert [path.name for path in named(tmp_path)] == ["step-00000003"]
    assert list_checkpoints(tmp_path) == [] and newest_good(tmp_path)[0] is None


def test_what_the_disk_says_is_told_with_the_file_the_size_and_the_verb_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    save(folder, 1)
    faults.forget()
    monkeypatch.setenv("BURNISH_FAULT", "EIO@flush:state.json:1")
    with pytest.raises(BurnishError) as told:
        save(folder, 2)
    monkeypatch.delenv("BURNISH_FAULT")
    assert (
        "state.json" in told.value.saw and "Input/output error; the checkpoint has 48 bytes" in told.value.saw
    )
    assert told.value.remedy.endswith(f"burnish resume {tmp_path / 'run'}")
    faults.forget()


def test_room_is_asked_for_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [0]
    monkeypatch.setattr(
        "burnish.checkpoint.space.shutil.disk_usage", lambda path: SimpleNamespace(free=free[0])
    )
    free[0] = 100 + space.SPARE
    space.require_room(tmp_path, 100)
    free[0] -= 1
    with pytest.raises(BurnishError, match=f"{100 + space.SPARE:,}"):
        space.require_room(tmp_path, 100)


def test_state_and_manifest_are_json_that_a_person_can_read_and_hold_no_nan(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    assert (path / STATE_FILE).read_text().startswith('{\n "step": 3,\n "best_loss": 0.5')
    assert (path / MANIFEST).read_text().startswith('{\n "schema": 2,\n "step": 3,\n "files": {\n  "weights')
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_checkpoint(tmp_path, Checkpoint(4, {}, {}, {"loss": float("nan")}))
    assert [step_of(one) for one in named(tmp_path)] == [3]


def test_what_cannot_be_swept_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        "burnish.checkpoint.files.shutil.rmtree",
        lambda path, ignore_errors=False: asked.append(ignore_errors),
    )
    (tmp_path / ".tmp-00000001-1").mkdir()
    sweep(tmp_path)
    assert asked == [True]


def test_a_draft_that_cannot_be_taken_away_does_not_hide_what_the_disk_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError("nor can it be deleted")

    faults.forget()
    monkeypatch.setenv("BURNISH_FAULT", "EIO@write:state.json:1")
    monkeypatch.setattr("burnish.checkpoint.files.shutil.rmtree", broken)
    with pytest.raises(BurnishError, match="Input/output error"):
        save(tmp_path, 2)
    faults.forget()
