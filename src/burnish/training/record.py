"""Write events down: metrics.jsonl for numbers, samples.jsonl for answers, sharpening.jsonl and forgetting.jsonl for
what the base is compared with, events.jsonl for the rest, and trackers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from burnish.errors import UsageError
from burnish.training.directory import RunDirectory
from burnish.training.events import (
    Audited,
    Drifted,
    Evaluated,
    Event,
    Looked,
    Ready,
    Sampled,
    Saved,
    Skipped,
    Stepped,
    Stopped,
    Warned,
)


class Tracker(Protocol):
    """A service that takes numbers by name and step."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Take one step's numbers."""

    def close(self) -> None:
        """Flush and leave."""


class Record:
    """Every event to the file it belongs in, and a copy of the numbers to the recipe's trackers."""

    def __init__(self, run: RunDirectory, trackers: Sequence[str], *, settings: dict[str, Any]) -> None:
        self._run = run
        self._trackers = [_open_tracker(name, run, settings) for name in trackers]

    def write(self, event: Event) -> None:
        """File one event."""
        match event:
            case Stepped():
                self._numbers("train", event.step, asdict(event))
            case Evaluated():
                self._numbers("eval", event.step, asdict(event))
            case Sampled():
                for sample in event.samples:
                    self._run.append("samples.jsonl", {"step": event.step, **sample})
            case Looked():
                self._run.append("sharpening.jsonl", event.line)
            case Drifted():
                self._run.append("forgetting.jsonl", asdict(event))
            case Ready() | Audited() | Skipped() | Warned() | Saved() | Stopped():
                fields = {
                    key: str(value) if key in ("run", "path") else value
                    for key, value in asdict(event).items()
                }
                self._run.append("events.jsonl", {"event": type(event).__name__.lower(), **fields})

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()

    def _numbers(self, kind: str, step: int, fields: dict[str, Any]) -> None:
        for name in ("source_loss", "source_accuracy", "source_tokens"):
            sources = fields.pop(name, None)
            if sources:
                fields[name] = {str(source): value for source, value in sources.items()}
        if fields.get("kl_to_base", 0) is None:
            del fields["kl_to_base"]
        self._run.append("metrics.jsonl", {"kind": kind, **fields})
        plain = {
            f"{kind}/{key}": float(value) for key, value in fields.items() if isinstance(value, (int, float))
        }
        for tracker in self._trackers:
            tracker.log(plain, step)


def _open_tracker(name: str, run: RunDirectory, settings: dict[str, Any]) -> Tracker:
    try:
        module = importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError as error:
        raise UsageError(
            f"report_to: {name} is not installed ({error})",
            rule="a tracker is a package of its own",
            remedy=f"pip install {name}, or leave it out of report_to",
        ) from error
    if name == "tensorboard":
        return _TensorBoard(module.SummaryWriter(run.path / "tensorboard"))
    return _Hosted(module.init(project="burnish", name=run.path.name, config=settings))


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Hosted:
    """wandb and trackio, whose runs share one face."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()
