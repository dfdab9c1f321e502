"""F2, F4 and F5: checkpoints alone. A save is cut at every place, the disk refuses every write, every bit may flip.

The checkpoints are of a few tensors: what is tried is the protocol, whose steps do not depend on their size.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import torch

from burnish.checkpoint import faults
from burnish.checkpoint.files import (
    MANIFEST,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    Checkpoint,
    load_checkpoint,
    named,
    newest_good,
    prune,
    sweep,
    write_checkpoint,
)
from burnish.errors import BurnishError, DataError
from burnish.experiments.reliability.outcome import Outcome

FILES = (WEIGHTS, OPTIMIZER, STATE, MANIFEST)
PLACES = [f"{what}:{name}" for name in FILES for what in ("open", "write", "flush")]
PLACES += ["draft", "rename", "folder", "trash", "unlink"]
ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT")


def made(step: int) -> Checkpoint:
    """A small checkpoint whose every number says its step."""
    shapes = {"embed": (40, 8), "layer.weight": (8, 8), "layer.bias": (8,), "empty": (0, 3)}
    weights = {name: torch.full(shape, float(step)) for name, shape in shapes.items()}
    moments = {f"{name}/exp_avg": tensor / 2 for name, tensor in weights.items()}
    return Checkpoint(step, weights, moments, {"tokens": 10 * step, "best_step": 1})


def fault_points(place: Path, *, seed: int) -> Outcome:
    """F2: SIGKILL at every place of a save, in the first save, in later ones, and in the rotation of the best."""
    outcome = Outcome("F2", "kill at every fault point x file x moment", seed)
    for moment, before in (("first save", 0), ("rotation", 2), ("best update", 2)):
        for fault in PLACES:
            folder = place / f"{moment}-{fault}".replace(" ", "-").replace(":", "-")
            for step in range(1, before + 1):
                write_checkpoint(folder, made(step))
            best = 1 if moment == "rotation" else before + 1
            died = _killed_saving(folder, before + 1, f"kill@{fault}:1", best=best)
            outcome.note(moment, _after_a_kill(folder, before, died, fault))
    return outcome


def _killed_saving(folder: Path, step: int, fault: str, *, best: int) -> bool:
    child = os.fork()
    if child == 0:
        os.environ["BURNISH_FAULT"] = fault
        faults.forget()
        try:
            write_checkpoint(folder, made(step))
            prune(folder, keep=1, protect={step, best})
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def _after_a_kill(folder: Path, before: int, died: bool, fault: str) -> str | None:
    rotates = before > 0 and fault in ("trash", "unlink")
    if not died and (rotates or fault not in ("trash", "unlink")):
        return f"{fault} was never reached"
    found, complaints = newest_good(folder)
    if complaints:
        return f"{fault}: {complaints[0]}"
    if (0 if found is None else found.step) < before:
        return f"{fault}: step {before} was lost"
    sweep(folder)
    write_checkpoint(folder, made(before + 1))
    again, complaints = newest_good(folder)
    if again is None or again.step != before + 1 or complaints or any(folder.glob(".*")):
        return f"{fault}: the save after it did not go through cleanly"
    return None


def disk_faults(place: Path, *, seed: int, writes: int = 40) -> Outcome:
    """F4: the n-th write fails, for n = 1..40 and four errors; then a disk that really is full, where there is one."""
    from burnish.checkpoint import tensors  # its size of a write is made small, so that there are many

    outcome = Outcome("F4", f"the disk refuses the n-th write, n = 1..{writes}", seed)
    chunk, tensors.CHUNK = tensors.CHUNK, 96
    try:
        for error in ERRORS:
            for count in range(1, writes + 1):
                outcome.note(error, _refused_write(place / f"{error}-{count}", f"{error}@write:{count}"))
    finally:
        tensors.CHUNK = chunk
        os.environ.pop("BURNISH_FAULT", None)
    return outcome


def _refused_write(folder: Path, fault: str) -> str | None:
    write_checkpoint(folder, made(1))
    os.environ["BURNISH_FAULT"] = fault
    faults.forget()
    try:
        write_checkpoint(folder, made(2))
    except BurnishError as refusal:
        if str(folder) not in refusal.saw or "bytes" not in refusal.saw:
            return f"{fault}: the message does not say where, or how much: {refusal.saw}"
    else:
        return f"{fault}: the write was not refused"
    finally:
        del os.environ["BURNISH_FAULT"]
    if [path.name for path in folder.iterdir()] != ["step-00000001"] or load_checkpoint(
        named(folder)[0]
    ).step != 1:
        return f"{fault}: the checkpoint before is not as it was"
    write_checkpoint(folder, made(2))
    return None if load_checkpoint(folder / "step-00000002").step == 2 else f"{fault}: not written afterwards"


def damage(place: Path, *, seed: int, trials: int = 500) -> Outcome:
    """F5: the newest of three checkpoints is damaged; it must be passed over, by name, and the one before used."""
    outcome = Outcome("F5", "a damaged checkpoint", seed)
    rng = random.Random(seed)
    whole = place / "whole"
    for step in (1, 2, 3):
        write_checkpoint(whole, made(step))
    for trial in range(trials):
        folder = place / f"{trial}"
        shutil.copytree(whole, folder)
        kind = rng.choice(sorted(DAMAGES))
        blamed = DAMAGES[kind](folder / "step-00000003", rng)
        outcome.note(kind, _detected(folder, blamed))
        shutil.rmtree(folder)
    return outcome


def _detected(folder: Path, blamed: str) -> str | None:
    try:
        load_checkpoint(folder / "step-00000003")
        return f"{blamed}: believed"
    except DataError as error:
        if blamed not in error.saw:
            return f"{blamed}: blamed on {error.saw}"
    found, complaints = newest_good(folder)
    if found is None or found.step != 2 or not complaints or "step-00000003" not in complaints[0]:
        return f"{blamed}: the checkpoint before was not used, or it was not said"
    return None


def _flip(directory: Path, rng: random.Random) -> str:
    path = directory / rng.choice(FILES)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return path.name


def _truncate(directory: Path, rng: random.Random) -> str:
    path = directory / rng.choice(FILES)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    return path.name


def _zero(directory: Path, rng: random.Random) -> str:
    path = directory / rng.choice(FILES)
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    end = min(len(content), start + 64)
    if not any(content[start:end]):  # zeros already: the page that holds the header then
        start, end = 0, min(len(content), 64)
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return path.name


def _swap(directory: Path, rng: random.Random) -> str:
    one, other = rng.sample(FILES, 2)
    kept = (directory / one).read_bytes()
    (directory / one).write_bytes((directory / other).read_bytes())
    (directory / other).write_bytes(kept)
    return str(directory)


def _of_another_step(directory: Path, rng: random.Random) -> str:
    name = rng.choice(FILES)
    older = directory.with_name("step-00000002") / name
    (directory / name).write_bytes(older.read_bytes())
    return str(directory)


def _lose(directory: Path, rng: random.Random) -> str:
    path = directory / rng.choice(FILES)
    path.unlink()
    return path.name


def _misname(directory: Path, rng: random.Random) -> str:
    shutil.rmtree(directory)
    shutil.copytree(directory.with_name("step-00000001"), directory)
    return MANIFEST


DAMAGES = {
    "flipped bit": _flip,
    "truncated": _truncate,
    "zeroed page": _zero,
    "swapped files": _swap,
    "file of another step": _of_another_step,
    "missing file": _lose,
    "another step's checkpoint": _misname,
}
