"""A run that goes wrong says so, keeps what it had, and never hangs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.checkpoint.files import list_checkpoints, load_checkpoint
from burnish.errors import BurnishError, Diverged, MemoryExhausted, UsageError
from burnish.models.anatomy import anatomy_of
from burnish.models.forward import Forward
from burnish.training import loop
from burnish.training.events import Event, Saved, Skipped, Stepped, Warned
from burnish.training.exhaustion import memory_errors, what_would_fit
from burnish.training.run import prepare, resume, train
from burnish.training.step import Abandoned, take_step
from burnish.training.watch import Watch
from tests.training.test_run import losses, recipe

ModelDirectory = Callable[[str], Path]


def poisoned(monkeypatch: pytest.MonkeyPatch, at: set[int]) -> None:
    """Losses of these forward passes (counted over the run) are not numbers."""
    whole, seen = Forward.loss, [0]

    def loss(self: Forward, pack: Any, **keys: float) -> Any:
        summed, nll = whole(self, pack, **keys)
        seen[0] += 1
        return (summed * float("nan") if seen[0] in at else summed), nll

    monkeypatch.setattr(Forward, "loss", loss)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the oracle's own forward passes."""
    monkeypatch.setattr("burnish.training.run.settle", lambda session: "not asked")


@pytest.mark.usefixtures("unasked")
def test_a_batch_that_is_not_finite_is_passed_over_where_the_recipe_says_so_and_named(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, {2})
    events: list[Event] = []
    asked = recipe(model_directory("llama"), data_file, tmp_path, on_nonfinite="skip_batch")
    result = train(asked, show=events.append)
    (skipped,) = [event for event in events if isinstance(event, Skipped)]
    assert skipped.step == 2 and "train.jsonl:" in skipped.why
    assert result.steps == 5 and len(losses(result.run)) == 4
    told = [json.loads(line) for line in (result.run / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told if line["event"] == "skipped"] == [2]
    state = load_checkpoint(list_checkpoints(result.run / "checkpoints")[-1]).state
    assert (state["skipped"], state["skipped_in_a_row"]) == (1, 0)


@pytest.mark.usefixtures("unasked")
def test_batches_are_not_skipped_without_end(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, set(range(2, 100)))
    asked = recipe(
        model_directory("llama"), data_file, tmp_path, on_nonfinite="skip_batch", num_epochs=9, save_steps=1
    )
    with pytest.raises(Diverged, match="step 9"):
        train(asked)
    assert all(torch.isfinite(w).all() for w in newest(tmp_path / "run").weights.values())


def newest(run: Path) -> Any:
    return load_checkpoint(list_checkpoints(run / "checkpoints")[-1])


@pytest.mark.usefixtures("unasked")
def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint_to_go_on_from(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"save_steps": 1}
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a", **asked))
    with monkeypatch.context() as patch:
        poisoned(patch, {3})
        with pytest.raises(Diverged, match=r"step 3.*train\.jsonl:"):
            train(recipe(model_directory("llama"), data_file, tmp_path / "b", **asked))
    assert newest(tmp_path / "b" / "run").step == 2
    resumed = resume(tmp_path / "b" / "run")
    assert losses(resumed.run) == losses(straight.run)


def test_weights_that_are_not_finite_are_never_saved(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"learning_rate": 1e30, "max_grad_norm": None, "save_steps": 1, "warmup_steps": 2}
    with pytest.raises(Diverged):
        train(recipe(model_directory("llama"), data_file, tmp_path, **keys))
    for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        assert all(torch.isfinite(weight).all() for weight in load_checkpoint(path).weights.values())


def test_a_spike_is_told_once_and_so_is_a_loss_that_stays_above_its_start() -> None:
    watch = Watch()
    assert all(watch.see(2.0 + 0.01 * (k % 5)) is None for k in range(20))
    assert "spike: 3.5" in str(watch.see(3.5))
    assert watch.see(3.6) is None
    assert all(watch.see(2.0 + 0.01 * (k % 5)) is None for k in range(20))
    told = [said for said in (watch.see(4.0 + 0.02 * (k % 3)) for k in range(40)) if said]
    assert "spike" in told[0] and "diverges: 4.0" in told[-1]
    again = Watch([2.0 + 0.01 * (k % 5) for k in range(20)])
    assert "spike" in str(again.see(3.5))


def test_a_warning_reaches_the_run_s_files(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Watch, "see", lambda self, loss: "look here")
    events: list[Event] = []
    run = train(
        recipe(model_directory("llama"), data_file, tmp_path, num_epochs=None, max_steps=1),
        show=events.append,
    ).run
    assert [event.why for event in events if isinstance(event, Warned)] == ["look here"]
    assert "look here" in (run / "events.jsonl").read_text()


def test_what_does_not_fit_is_answered_with_the_setting_that_does(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    made = recipe(model_directory("llama"), data_file, tmp_path, micro_batch_size=8).recipe
    with pytest.raises(MemoryExhausted) as caught, memory_errors(made):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    assert caught.value.exit_code == 4
    assert caught.value.remedy.startswith("say gradient_checkpointing=true")
    with pytest.raises(RuntimeError, match="something else"), memory_errors(made):
        raise RuntimeError("something else")


def test_the_remedy_for_memory_changes_the_cut_first_then_the_method_and_says_what_it_comes_to(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    directory = model_directory("llama")
    anatomy = anatomy_of(str(directory))
    large = recipe(directory, data_file, tmp_path, micro_batch_size=8, max_length=100_000).recipe
    checkpointed = large.model_copy(update={"gradient_checkpointing": True})
    assert "gradient_checkpointing=true:" in what_would_fit(large, anatomy, room=1e12)
    assert "gradient_checkpointing=true micro_batch_size=4:" in what_would_fit(large, anatomy, room=2.2e9)
    assert "micro_batch_size=4:" in what_would_fit(checkpointed, anatomy, room=1e12)
    assert "the least there is" in what_would_fit(large, anatomy, room=1.0)


def test_a_signal_within_an_update_gives_it_up_between_two_packs_and_nothing_has_moved(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    session = prepare(recipe(model_directory("llama"), data_file, tmp_path, micro_batch_size=2).recipe)
    before = {name: weight.clone() for name, weight in session.masters.parameters.items()}
    with pytest.raises(Abandoned):
        take_step(session, interrupted=lambda: True)
    assert session.state.step == 0
    assert all(weight.grad is None for weight in session.masters.parameters.values())
    assert all(torch.equal(before[name], weight) for name, weight in session.masters.parameters.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_run_told_to_end_leaves_a_whole_checkpoint(
    number: signal.Signals, model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    def show(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            os.kill(os.getpid(), number)

    stopped = train(recipe(model_directory("llama"), data_file, tmp_path), show=show)
    assert (stopped.stopped_by, stopped.steps) == ("interrupted", 2)
    assert newest(stopped.run).step == 2


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize("at", [0, 2], ids=["before the first update", "after the fourth"])
def test_a_run_told_to_end_within_an_evaluation_gives_it_up_and_its_resume_makes_up_for_it(
    at: int, model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(name: str) -> Any:
        keys = {"val_set_size": 6, "micro_batch_size": 2, "eval_steps": 2, "save_steps": 3, "num_epochs": 2}
        return recipe(model_directory("llama"), data_file, tmp_path / name, **keys)

    straight = train(asked("straight")).run
    whole, passes = Forward.judge, [0]
    each = len(prepare(asked("none").recipe).held_out)
    assert each > 2

    def judge(self: Forward, pack: Any) -> Any:
        passes[0] += 1
        if passes[0] == at * each + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, pack)

    monkeypatch.setattr(Forward, "judge", judge)
    stopped = train(asked("stopped"))
    assert (stopped.stopped_by, stopped.steps, passes[0]) == ("interrupted", 2 * at, at * each + 1)
    assert newest(stopped.run).step == 2 * at and newest(stopped.run).state["owes_evaluation"]
    resume(stopped.run)
    own = ("seconds", "memory_bytes")

    def lines(run: Path) -> list[str]:
        return (run / "metrics.jsonl").read_text().splitlines()

    told = [
        [{k: v for k, v in json.loads(line).items() if k not in own} for line in lines(run)]
        for run in (straight, stopped.run)
    ]
    assert told[0] == told[1]
    final = [(run / "final" / "model.safetensors").read_bytes() for run in (straight, stopped.run)]
    assert final[0] == final[1] and not newest(stopped.run).state["owes_evaluation"]


def test_a_full_disk_stops_the_run_with_the_place_and_the_bytes_and_the_run_can_go_on(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from burnish.checkpoint import faults

    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a", save_steps=2))
    faults.forget()
    monkeypatch.setenv("BURNISH_FAULT", "ENOSPC@write:weights.safetensors:25")
    with pytest.raises(BurnishError, match=r"No space left on device.*bytes") as caught:
        train(recipe(model_directory("llama"), data_file, tmp_path / "b", save_steps=2))
    monkeypatch.delenv("BURNISH_FAULT")
    assert caught.value.exit_code == 1 and "burnish resume" in caught.value.remedy
    assert newest(tmp_path / "b" / "run").step == 2
    assert losses(resume(tmp_path / "b" / "run").run) == losses(straight.run)


def test_a_run_does_not_start_where_its_checkpoints_would_not_fit(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "burnish.checkpoint.space.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})
    )
    with pytest.raises(BurnishError, match="1,000 bytes are free, and this run"):
        train(recipe(model_directory("llama"), data_file, tmp_path))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_two_processes_do_not_train_one_run(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    refused: list[str] = []

    def show(event: Event) -> None:
        if isinstance(event, Saved):
            child = os.fork()
            if child == 0:
                try:
                    resume(tmp_path / "run")
                except UsageError as error:
                    os._exit(7 if "another process" in error.saw else 8)
                os._exit(0)
            refused.append(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))

    train(recipe(model_directory("llama"), data_file, tmp_path), show=show)
    assert refused == ["7"]
