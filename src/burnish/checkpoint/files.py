"""Checkpoints that are there entirely or not at all; safetensors and JSON only.

    checkpoints/step-00000120/
        weights.safetensors      the trained parameters, fp32, by name
        optimizer.safetensors    "{parameter}/{entry}"
        state.json               what else the run needs to go on
        MANIFEST.json            every file's size and SHA-256; written last

Written under a temporary name, each file flushed to disk, the manifest last, then renamed (`checkpoint.faults` names
every place at which that can be cut). A directory whose manifest does not verify is not a checkpoint, whatever its
name. Two files of different steps never verify together: a manifest names one step, and each file's hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from burnish.checkpoint.faults import point
from burnish.checkpoint.pace import at_once
from burnish.checkpoint.place import discard, flush
from burnish.checkpoint.space import require_room
from burnish.checkpoint.tensors import (
    is_finite,
    map_hashed,
    read_hashed,
    tensors_in,
    whole,
    write_stream,
    write_tensors,
)
from burnish.errors import BurnishError, DataError, Diverged

MANIFEST = "MANIFEST.json"
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Trained weights and optimiser state by name, and the run's own state, all of one step."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]

    def copied(self) -> Checkpoint:
        """The same numbers in memory of their own, which the next update does not move."""
        return Checkpoint(
            self.step,
            {name: _copy(tensor) for name, tensor in self.weights.items()},
            {name: _copy(tensor) for name, tensor in self.optimizer.items()},
            dict(self.state),
        )

    @property
    def num_bytes(self) -> int:
        """What its tensors take."""
        tensors = [*self.weights.values(), *self.optimizer.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def write_checkpoint(
    folder: Path, made: Checkpoint, *, writes: bool = True, pace: Callable[[int], None] = at_once
) -> Path:
    """Write a checkpoint; Diverged, with nothing written, where a number in it is not finite.

    Of tensors that are dealt to ranks each is gathered as its turn comes: all ranks call this, and one `writes`.
    `pace` is told twice of every byte: when it was looked at, and when it was written.
    """
    _require_finite(made, pace)
    if not writes:
        for tensor in [*made.weights.values(), *made.optimizer.values()]:
            whole(tensor)
        return place_of(folder, made.step)
    folder.mkdir(parents=True, exist_ok=True)
    require_room(folder, made.num_bytes)
    draft = folder / f".tmp-{made.step:08d}-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        _fill(draft, made, pace)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)  # the room it took may be what was lacking
        raise _refused(error, draft, made.num_bytes) from error
    return _name(draft, place_of(folder, made.step))


def _fill(draft: Path, made: Checkpoint, pace: Callable[[int], None]) -> None:
    said = json.dumps({"step": made.step, **made.state}, indent=1, allow_nan=False).encode()
    entries = {
        WEIGHTS: write_tensors(draft / WEIGHTS, made.weights, pace),
        OPTIMIZER: write_tensors(draft / OPTIMIZER, made.optimizer, pace),
        STATE: write_stream(draft / STATE, iter([memoryview(said)])),
    }
    write_stream(draft / MANIFEST, iter([memoryview(_manifest(made.step, entries))]))
    point("draft", draft)
    flush(draft)


def _name(draft: Path, final: Path) -> Path:
    """Give a complete draft its name; a checkpoint of that step that verifies stays, a damaged one makes way."""
    if final.exists():
        try:
            verify(final)
        except DataError:
            discard(final)
        else:
            shutil.rmtree(draft)
            return final
    point("rename", draft)
    draft.rename(final)
    point("folder", final)
    flush(final.parent)
    return final


def load_checkpoint(directory: Path, *, mapped: bool = False) -> Checkpoint:
    """Read a checkpoint whose manifest verifies; DataError names the file that is damaged.

    Every file is read once, and what is used are the bytes that were hashed. `mapped` leaves them in their files, for
    a rank that takes its own part of each tensor: several of a host would otherwise hold the whole of it each.
    """
    with ThreadPoolExecutor(3) as threads:
        entries = _entries(directory)
        reads = {
            name: threads.submit(_read_checked, directory, name, entry, map_hashed if mapped else read_hashed)
            for name, entry in entries.items()
        }
        read = {name: future.result() for name, future in reads.items()}
    try:
        weights, optimizer = tensors_in(read[WEIGHTS]), tensors_in(read[OPTIMIZER])
        state = json.loads(read[STATE].numpy().tobytes())
    except Exception as error:  # its hash is right, and it is none: whatever is raised, the file is at fault
        raise _damaged(directory, f"{directory}: {error}") from error
    return Checkpoint(step=state["step"], weights=weights, optimizer=optimizer, state=state)


def verify(directory: Path) -> None:
    """Compare every file with the manifest's size and hash; DataError at the first difference."""
    for name, entry in _entries(directory).items():
        _require_size(directory, name, entry)
        _require_hash(directory, name, entry, _sha256(directory / name))


def _entries(directory: Path) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file, the manifest itself being checked at once."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise _damaged(directory, f"{manifest} is missing")
    said = manifest.read_bytes()
    try:
        content = json.loads(said)
        step, entries = content["step"], content["files"]
        is_ours = said == _manifest(step, entries) and {WEIGHTS, OPTIMIZER, STATE} == set(entries)
    except (ValueError, TypeError, KeyError, RecursionError):
        is_ours = False
    if not is_ours:
        raise _damaged(directory, f"{manifest} is not a manifest as burnish writes it")
    if directory.name.startswith("step-") and directory.name != place_of(directory.parent, step).name:
        raise _damaged(directory, f"{manifest} is that of step {step}")
    return dict(entries)


def _read_checked(
    directory: Path, name: str, entry: dict[str, Any], read: Callable[[Path], tuple[Tensor, str]]
) -> Tensor:
    _require_size(directory, name, entry)
    whole, sha256 = read(directory / name)
    _require_hash(directory, name, entry, sha256)
    return whole


def _require_size(directory: Path, name: str, entry: dict[str, Any]) -> None:
    path = directory / name
    if not path.is_file():
        raise _damaged(directory, f"{path} is missing")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise _damaged(directory, f"{path} has {size} bytes, and {entry['bytes']} in its manifest")


def _require_hash(directory: Path, name: str, entry: dict[str, Any], sha256: str) -> None:
    if sha256 != entry["sha256"]:
        raise _damaged(directory, f"{directory / name} differs from its manifest")


def list_checkpoints(folder: Path) -> list[Path]:
    """The named checkpoints below `folder`, oldest first; not yet verified."""
    return sorted(path for path in named(folder) if (path / MANIFEST).is_file())


def named(folder: Path) -> list[Path]:
    """Every directory that calls itself a checkpoint, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit())


def place_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is below `folder`, or will be."""
    return folder / f"step-{step:08d}"


def step_of(directory: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(directory.name.removeprefix("step-"))


def newest_good(
    folder: Path, *, below: int | None = None, mapped: bool = False
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies (of a step before `below`), and what was wrong with those after it."""
    complaints: list[str] = []
    for directory in reversed(named(folder)):
        if below is not None and step_of(directory) >= below:
            continue
        try:
            return load_checkpoint(directory, mapped=mapped), complaints
        except DataError as error:
            complaints.append(f"passed over: {error.saw}")
    return None, complaints


def prune(folder: Path, *, keep: int, protect: set[int]) -> None:
    """Delete the oldest checkpoints beyond `keep`, never those of the steps in `protect`."""
    found = list_checkpoints(folder)
    spare = [path for path in found if step_of(path) not in protect]
    for path in spare[: max(0, len(found) - keep)]:
        discard(path)


def sweep(folder: Path) -> None:
    """Delete what killed processes left half written or half deleted; only for who holds the run's lock."""
    for pattern in (".tmp-*", ".trash-*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _require_finite(made: Checkpoint, pace: Callable[[int], None]) -> None:
    """Diverged where a weight or a moment is not finite: such a checkpoint would push out a good one."""
    for name, tensor in [*made.weights.items(), *made.optimizer.items()]:
        if not is_finite(tensor, pace):
            raise Diverged(
                f"step {made.step}: {name} holds numbers that are not finite; no checkpoint was written of it",
                rule="a checkpoint holds finite numbers; the ones before it stay",
                remedy="lower learning_rate, and start again or resume with --allow-change=learning_rate",
            )


def _copy(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, laid out as a file has it: the thread that writes has nothing to move."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _manifest(step: int, entries: Mapping[str, Any]) -> bytes:
    """The manifest, sealed with a hash of itself: where it and a file disagree, the file is to blame."""
    body = {"schema": SCHEMA, "step": step, "files": entries}
    seal = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return json.dumps({**body, "seal": seal}, indent=1).encode() + b"\n"


def _damaged(directory: Path, saw: str) -> DataError:
    return DataError(
        saw,
        rule="a checkpoint is used only if every file matches its manifest",
        remedy=f"delete {directory}; an older checkpoint beside it will be used",
    )


def _refused(error: OSError, draft: Path, num_bytes: int) -> BurnishError:
    return BurnishError(
        f"{error.filename or draft}: {error.strerror or error}; the checkpoint has {num_bytes:,} bytes",
        rule="a checkpoint is written whole or not at all; the ones before it are as they were",
        remedy=f"see to the disk that holds {draft.parent}, then: burnish resume {draft.parent.parent}",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
