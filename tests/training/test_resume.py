"""Resuming gives the run that was not killed, or says what is different."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.checkpoint.files import list_checkpoints, load_checkpoint
from burnish.errors import DataError, UsageError
from burnish.recipe.load import load_recipe
from burnish.training.again import repeat_last_interval
from burnish.training.run import prepare, resume, train
from burnish.training.step import evaluate
from tests.conftest import conversation
from tests.training.test_run import final_weights, interrupting, recipe

ModelDirectory = Callable[[str], Path]
OWN = ("seconds", "memory_bytes")


def numbers(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in OWN} for line in lines]


def killed(job: Callable[[], object], fault: str) -> int:
    """The exit code of a process that did the job with a fault planted.

    Forked from a server that never computed: in a fork of this process, whose threads are not in the copy, torch waits
    for them for ever or dies of a segmentation fault.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    child = processes.Process(target=_with_fault, args=(job, fault))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _with_fault(job: Callable[[], object], fault: str) -> None:
    os.environ["BURNISH_FAULT"] = fault
    job()


def assert_same(one: Path, other: Path) -> None:
    assert numbers(one) == numbers(other)
    ours, theirs = list_checkpoints(one / "checkpoints"), list_checkpoints(other / "checkpoints")
    # The one resumed from stays as well, so that more may be kept; what both have is equal.
    both = {path.name for path in ours} & {path.name for path in theirs}
    assert ours[-1].name in both
    for a, b in ((one / "checkpoints" / name, other / "checkpoints" / name) for name in both):
        for file in ("weights.safetensors", "optimizer.safetensors", "state.json"):
            assert (a / file).read_bytes() == (b / file).read_bytes(), f"{a.name}/{file}"
    for name, weight in final_weights(one).items():
        assert torch.equal(weight, final_weights(other)[name]), name


@pytest.mark.parametrize(
    "more",
    [
        {"packing": False, "gradient_checkpointing": True},
        {"adapter": "lora", "lora_dropout": 0.2, "micro_batch_size": 2},
    ],
    ids=str,
)
def test_killed_in_saves_and_in_its_resume_a_run_comes_to_the_same_bits(
    more: dict[str, Any], model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"num_epochs": 2, "val_set_size": 8, "save_steps": 2, "eval_steps": 3, **more}
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a", **keys))
    asked = recipe(model_directory("llama"), data_file, tmp_path / "b", **keys)
    run = tmp_path / "b" / "run"
    assert killed(partial(train, asked), "kill@rename:2") == -signal.SIGKILL
    assert killed(partial(resume, run), "kill@replace:metrics.jsonl:1") == -signal.SIGKILL
    assert killed(partial(resume, run), "kill@write:weights.safetensors:2") == -signal.SIGKILL
    assert killed(partial(resume, run), "kill@place:final:1") == -signal.SIGKILL
    assert not (run / "final").exists()
    resume(run)
    assert_same(straight.run, run)


def test_a_run_killed_before_its_first_checkpoint_begins_with_the_same_evaluation(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"dtype": "bfloat16", "val_set_size": 8, "save_steps": 2}
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a", **keys))
    asked = recipe(model_directory("llama"), data_file, tmp_path / "b", **keys)
    assert killed(partial(train, asked), "kill@rename:1") == -signal.SIGKILL
    resume(tmp_path / "b" / "run")
    assert_same(straight.run, tmp_path / "b" / "run")


def test_the_first_evaluation_of_a_process_gives_what_every_later_one_gives(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    asked = recipe(model_directory("llama"), data_file, tmp_path, dtype="bfloat16", val_set_size=8)
    session = prepare(asked.recipe)
    assert evaluate(session).loss == evaluate(session).loss


def test_patience_is_remembered_over_a_kill_and_a_run_that_stopped_stays_stopped(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {
        "val_set_size": 8, "num_epochs": 60, "learning_rate": 3e-2, "eval_steps": 2, "save_steps": 1,
        "early_stopping_patience": 3,
    }  # fmt: skip
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a", **keys))
    assert straight.stopped_by == "early_stopping"
    asked = recipe(model_directory("llama"), data_file, tmp_path / "b", **keys)
    stopped = train(asked, show=interrupting(straight.steps - 1))
    resumed = resume(stopped.run)
    assert (resumed.steps, resumed.stopped_by) == (straight.steps, "early_stopping")
    assert_same(straight.run, resumed.run)
    again = resume(resumed.run, ["num_epochs=90"])
    assert (again.steps, again.stopped_by) == (straight.steps, "early_stopping")


def test_a_finished_run_is_made_longer_without_being_asked_twice(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"lr_scheduler": "constant", "warmup_steps": 0}
    done = train(recipe(model_directory("llama"), data_file, tmp_path / "a", **keys))
    longer = resume(done.run, ["num_epochs=2"])
    assert (done.steps, longer.steps, longer.stopped_by) == (5, 10, "finished")
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "b", num_epochs=2, **keys))
    for name, weight in final_weights(straight.run).items():
        assert torch.equal(weight, final_weights(longer.run)[name]), name
    with pytest.raises(UsageError, match="num_epochs: 1, was 2"):
        resume(done.run, ["num_epochs=1"])


def test_verify_trains_the_last_interval_again_and_finds_one_changed_number(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"num_epochs": 2, "val_set_size": 8, "save_steps": 4, "adapter": "lora", "lora_dropout": 0.1}
    run = train(recipe(model_directory("llama"), data_file, tmp_path, **keys)).run
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    found = repeat_last_interval(run)
    assert found.differences == []
    assert 0 < found.first < found.last == 8 and found.tensors > 10
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert before == {path: time for path, time in after.items() if path.name != ".lock"} | {
        path: time for path, time in before.items() if path.name == ".lock"
    }

    newest = list_checkpoints(run / "checkpoints")[-1]
    saved = load_checkpoint(newest)
    name = sorted(saved.weights)[0]
    saved.weights[name].view(-1)[0] += 1e-6
    from burnish.checkpoint.files import write_checkpoint
    from burnish.checkpoint.place import discard

    discard(newest)
    write_checkpoint(run / "checkpoints", saved)
    (difference,) = repeat_last_interval(run).differences
    assert name in difference and "apart" in difference


def test_a_recipe_edited_behind_the_run_s_back_is_refused_with_every_difference(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    stopped = train(recipe(model_directory("llama"), data_file, tmp_path), show=interrupting(2))
    path = stopped.run / "resolved.yaml"
    text = path.read_text()
    path.write_text(
        text.replace("learning_rate: 0.001", "learning_rate: 0.002").replace("seed: 42", "seed: 7")
    )
    with pytest.raises(UsageError, match=r"learning_rate: 0.002, was 0.001; seed: 7, was 42"):
        resume(stopped.run)
    path.write_text(text)
    assert resume(stopped.run).stopped_by == "finished"


def test_other_data_is_refused_with_what_differs(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    stopped = train(recipe(model_directory("llama"), data_file, tmp_path), show=interrupting(2))
    data_file.write_text(data_file.read_text() + json.dumps(conversation(99)) + "\n")
    with pytest.raises(UsageError, match="rows: 41, was 40"):
        resume(stopped.run)


def test_a_damaged_newest_checkpoint_is_passed_over_aloud_and_the_bits_are_the_same(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"save_steps": 1, "save_total_limit": 3}
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a", **keys))
    stopped = train(recipe(model_directory("llama"), data_file, tmp_path / "b", **keys), show=interrupting(4))
    weights = list_checkpoints(stopped.run / "checkpoints")[-1] / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 4
    weights.write_bytes(content)
    notes: list[str] = []
    resumed = resume(stopped.run, show=lambda event: notes.extend(getattr(event, "notes", ())))
    assert any("passed over" in note and "step-00000004" in note for note in notes)
    assert "resuming after step 3" in notes
    assert numbers(resumed.run) == numbers(straight.run)
    for name, weight in final_weights(straight.run).items():
        assert torch.equal(weight, final_weights(resumed.run)[name]), name


def test_a_checkpoint_of_another_shape_is_refused_and_not_a_bug(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"adapter": "lora", "lora_r": 4}
    stopped = train(recipe(model_directory("llama"), data_file, tmp_path, **keys), show=interrupting(2))
    for change in ("lora_r=8", "adapter=full"):
        key = change.split("=")[0]
        more = ["lora_alpha"] if key == "lora_r" else []
        with pytest.raises(DataError, match="saved"):
            resume(stopped.run, [change], allow_change=[key, *more])


def test_a_parameter_that_does_not_lie_in_rows_is_resumed_as_any_other() -> None:
    from burnish.optim.build import Optimizer

    def steps(load: bool) -> torch.Tensor:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(6, 4).t())
        assert not weight.is_contiguous()
        built = lambda: Optimizer({"w": weight}, name="adamw", weight_decay=0.1, embeddings=frozenset())  # noqa: E731
        optimizer = built()
        for step in range(6):
            if step == 3 and load:
                saved = {key: value.contiguous().clone() for key, value in optimizer.state().items()}
                optimizer = built()
                optimizer.load(saved)
            weight.grad = torch.empty_like(weight).copy_(torch.randn(4, 6))
            optimizer.step(1e-2)
        return weight.detach().clone()

    assert torch.equal(steps(load=True), steps(load=False))


def test_no_secret_of_the_environment_reaches_a_run_s_files(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-4f9d2c71e8"
    monkeypatch.setenv("MY_API_KEY", canary)
    rows = data_file.read_text().replace("so it stays", canary)
    data_file.write_text(rows)
    keys = {"sample_prompts": [f"say {canary[:-2]}"], "num_epochs": None, "max_steps": 1}
    run = train(recipe(model_directory("llama"), data_file, tmp_path, **keys)).run
    assert not [path for path in run.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
    with pytest.raises(UsageError, match="sample_prompts holds a secret"):
        train(recipe(model_directory("llama"), data_file, tmp_path / "2", sample_prompts=[f"say {canary}"]))
    assert prepare(load_recipe(run / "resolved.yaml").recipe).data.train.num_tokens > 0
