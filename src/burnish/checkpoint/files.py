"""Checkpoints that are there entirely or not at all; safetensors and JSON only.

    checkpoints/step-00000120/
        weights.safetensors      the trained parameters, fp32, by name
        optimizer.safetensors    "{parameter}/{entry}"
        state.json               what else the run needs to go on
        MANIFEST.json            every file's size and SHA-256; written last

Written under a temporary name, flushed to disk, renamed. A directory without a manifest that verifies is not a
checkpoint, whatever its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from burnish.errors import DataError

MANIFEST = "MANIFEST.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint: trained weights and optimiser state by name, and the run's own state."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> Path:
    """Write the checkpoint of `step` below `folder` and return its directory; complete once it has its name."""
    final = folder / f"step-{step:08d}"
    draft = folder / f".tmp-{step:08d}-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in weights.items()},
        draft / "weights.safetensors",
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in optimizer.items()}, draft / "optimizer.safetensors"
    )
    (draft / "state.json").write_text(json.dumps({"step": step, **state}, indent=1, allow_nan=False))
    files = sorted(path for path in draft.iterdir())
    entries = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    (draft / MANIFEST).write_text(json.dumps({"step": step, "files": entries}, indent=1))
    for path in [*files, draft / MANIFEST, draft]:
        _flush(path)
    if final.exists():
        shutil.rmtree(final)
    draft.rename(final)
    _flush(folder)
    return final


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint whose manifest verifies; DataError names the file that is damaged."""
    verify(directory)
    state = json.loads((directory / "state.json").read_text())
    return Checkpoint(
        step=state["step"],
        weights=load_file(directory / "weights.safetensors"),
        optimizer=load_file(directory / "optimizer.safetensors"),
        state=state,
    )


def verify(directory: Path) -> None:
    """Compare every file with the manifest's size and hash; DataError at the first difference."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise _damaged(directory, f"{manifest} is missing")
    for name, entry in json.loads(manifest.read_text())["files"].items():
        path = directory / name
        if not path.is_file():
            raise _damaged(directory, f"{path} is missing")
        if path.stat().st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
            raise _damaged(directory, f"{path} differs from its manifest")


def list_checkpoints(folder: Path) -> list[Path]:
    """The named checkpoints below `folder`, oldest first; not yet verified."""
    return sorted(path for path in folder.glob("step-*") if (path / MANIFEST).is_file())


def newest_good(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and what was wrong with those after it."""
    complaints: list[str] = []
    for directory in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(directory), complaints
        except DataError as error:
            complaints.append(error.saw)
    return None, complaints


def prune(folder: Path, *, keep: int, protect: set[int]) -> None:
    """Delete the oldest checkpoints beyond `keep`, never those of the steps in `protect`."""
    found = list_checkpoints(folder)
    spare = [path for path in found if int(path.name.removeprefix("step-")) not in protect]
    for path in spare[: max(0, len(found) - keep)]:
        trash = path.with_name(f".trash-{path.name}")
        path.rename(trash)  # gone from sight at once, whatever happens to the slow delete
        shutil.rmtree(trash)


def _damaged(directory: Path, saw: str) -> DataError:
    return DataError(
        saw,
        rule="a checkpoint is used only if every file matches its manifest",
        remedy=f"delete {directory}; an older checkpoint beside it will be used",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
