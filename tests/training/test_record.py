"""Events land in their files, numbers reach the trackers, and what is not a number is never written as one."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from burnish.errors import UsageError
from burnish.training.directory import RunDirectory, create_run
from burnish.training.events import Evaluated, Sampled, Saved, Stepped, Stopped
from burnish.training.loop import evaluation_interval
from burnish.training.record import Record

STEP = Stepped(
    step=1,
    num_steps=3,
    epoch=0.5,
    loss=2.0,
    learning_rate=1e-3,
    grad_norm=math.nan,
    graded_tokens=10,
    tokens=20,
    seconds=0.1,
    memory_bytes=100,
    source_loss={0: 1.5, 1: 2.5},
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(str(tmp_path), "run")


def lines(run: RunDirectory, name: str) -> list[Any]:
    return [json.loads(line) for line in (run.path / name).read_text().splitlines()]


def test_each_kind_of_event_has_its_file(run: RunDirectory) -> None:
    record = Record(run, [], settings={})
    record.write(STEP)
    record.write(Evaluated(step=1, loss=1.0, accuracy=0.5, graded_tokens=4, best=True))
    record.write(Sampled(1, ({"prompt": "a", "text": "b", "finish_reason": "stop"},)))
    record.write(Saved(1, run.path / "checkpoints" / "step-00000001"))
    record.write(Stopped(1, "finished"))
    train, evaluation = lines(run, "metrics.jsonl")
    assert (train["kind"], train["loss"], train["source_loss"]) == ("train", 2.0, {"0": 1.5, "1": 2.5})
    assert train["grad_norm"] is None  # NaN in JSON would break every reader
    assert (evaluation["kind"], evaluation["accuracy"]) == ("eval", 0.5)
    assert lines(run, "samples.jsonl") == [{"step": 1, "prompt": "a", "text": "b", "finish_reason": "stop"}]
    assert [event["event"] for event in lines(run, "events.jsonl")] == ["saved", "stopped"]


def test_a_hosted_tracker_gets_numbers_by_name_and_step(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeRun:
        logged: list[tuple[dict[str, float], int]]
        finished = False

        def __init__(self) -> None:
            self.logged = []

        def log(self, numbers: dict[str, float], step: int) -> None:
            self.logged.append((numbers, step))

        def finish(self) -> None:
            self.finished = True

    fake, module = FakeRun(), ModuleType("wandb")
    module.init = lambda **given: fake if given["name"] == "run" else None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    record = Record(run, ["wandb"], settings={"seed": 1})
    record.write(STEP)
    record.close()
    numbers, step = fake.logged[0]
    assert step == 1 and numbers["train/loss"] == 2.0
    assert fake.finished


def test_a_tracker_that_is_not_installed_is_named_before_training(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UsageError, match="trackio is not installed"):
        Record(run, ["trackio"], settings={})


def test_a_resumed_run_forgets_what_was_logged_after_its_checkpoint(run: RunDirectory) -> None:
    for step in (1, 2, 3):
        run.append("metrics.jsonl", {"kind": "train", "step": step})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "train", "st')  # a kill in the middle of a line
    run.rewind(2)
    assert [line["step"] for line in lines(run, "metrics.jsonl")] == [1, 2]


def test_two_processes_do_not_write_one_run(run: RunDirectory) -> None:
    with run.locked(), pytest.raises(UsageError, match="another process"), RunDirectory(run.path).locked():
        pass


def test_evaluations_come_every_so_many_updates_or_every_share_of_the_run() -> None:
    assert evaluation_interval(7, 100) == 7
    assert evaluation_interval(0.25, 100) == 25
    assert evaluation_interval(None, 100) == 10
    assert evaluation_interval(None, 3) == 1
