"""The run directory: the contract between training, which writes it, and everything that only reads it.

runs/NAME/  recipe.yaml  resolved.yaml  environment.json  ledger.jsonl  plan.json  metrics.jsonl  events.jsonl
            samples.jsonl  summary.json  checkpoints/  final/  adapter/
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import orjson

from burnish.checkpoint.faults import point
from burnish.checkpoint.place import discard, flush
from burnish.errors import DataError, UsageError
from burnish.recipe.redact import redacted

LOGS = ("metrics.jsonl", "samples.jsonl", "events.jsonl")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run's files by name. Lines are appended whole; a number that is not finite is written as null.

    Of several ranks one writes; to the others `writes` is false, and what they would write is left out.
    """

    path: Path
    writes: bool = True

    @property
    def checkpoints(self) -> Path:
        """Where `step-N` directories are."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The finished model, in transformers' own format."""
        return self.path / "final"

    @property
    def adapter(self) -> Path:
        """The finished adapter, in PEFT's own format; only where the recipe trained one."""
        return self.path / "adapter"

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file; whoever reads it meanwhile, and whatever kills this process, it is there whole."""
        self.replace(name, orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")

    def replace(self, name: str, content: bytes) -> None:
        """Put a file in the place of the one there is, all at once."""
        if not self.writes:
            return
        draft = self.path / f".{name}-{os.getpid()}"
        with draft.open("wb") as file:
            point(f"replace:{name}", draft)
            file.write(redacted(content))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / name)

    def read(self, name: str) -> Any:
        """Read a JSON file; DataError where it is missing or not JSON."""
        try:
            return orjson.loads((self.path / name).read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path / name}: {error}",
                rule="a run directory is written by burnish, and every JSON file in it whole",
                remedy="restore the file from a copy, or train again under another run_name",
            ) from error

    def append(self, name: str, value: Any) -> None:
        """Add one line to a JSONL file."""
        if not self.writes:
            return
        with (self.path / name).open("ab") as file:
            file.write(redacted(orjson.dumps(value)) + b"\n")

    @contextmanager
    def filled(self, place: Path) -> Iterator[Path]:
        """A folder to be filled within the block, which has the name `place` once it is whole and on disk."""
        draft = place.with_name(f".{place.name}-draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        yield draft
        for path in [*(path for path in draft.rglob("*") if path.is_file()), draft]:
            flush(path)
        point(f"place:{place.name}", draft)
        if place.exists():
            discard(place)
        draft.rename(place)
        flush(self.path)

    def flush(self) -> None:
        """Have what was logged reach the disk; a checkpoint then never knows more than its run's files."""
        for name in LOGS:
            if (self.path / name).exists():
                flush(self.path / name)

    def lines(self, name: str) -> list[Any]:
        """Read a JSONL file; a last line that a kill cut short is left out."""
        path = self.path / name
        if not path.exists():
            return []
        whole = path.read_bytes().split(b"\n")[:-1]
        try:
            return [orjson.loads(line) for line in whole]
        except ValueError as error:
            raise DataError(
                f"{path}: {error}",
                rule="a run's logs are JSON, one object a line, as burnish wrote them",
                remedy=f"restore {path} from a copy, or delete the line",
            ) from error

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`, so that a resumed run logs it once."""
        if not self.writes:
            return
        for name in LOGS:
            kept = [line for line in self.lines(name) if line.get("step", 0) <= step]
            self.replace(name, b"".join(orjson.dumps(line) + b"\n" for line in kept))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; a second writer is refused."""
        if not self.writes:
            yield
            return
        with (self.path / ".lock").open("w") as file:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{self.path}: another process is training this run",
                    rule="one process writes a run directory",
                    remedy="wait for it, or give this run another run_name",
                ) from error
            yield


def create_run(output_dir: str, run_name: str) -> RunDirectory:
    """A new, empty run directory; UsageError where a run of that name is already there."""
    path = Path(output_dir) / run_name
    if path.exists() and any(path.iterdir()):
        raise already_a_run(path)
    path.mkdir(parents=True, exist_ok=True)
    return RunDirectory(path)


def already_a_run(path: Path) -> UsageError:
    """The error of a run whose directory another run has."""
    return UsageError(
        f"{path} already holds a run",
        rule="a run directory is written by one run",
        remedy=f"go on with it (burnish resume {path}), or choose another name: run_name=...",
    )


def open_run(path: str | Path) -> RunDirectory:
    """An existing run directory; UsageError where there is none."""
    directory = Path(path)
    if not (directory / "resolved.yaml").is_file():
        raise UsageError(
            f"{directory} is not a run directory: it has no resolved.yaml",
            rule="a run is what `burnish train` writes, by default below runs/",
            remedy="list the runs there are: burnish runs",
        )
    return RunDirectory(directory)
