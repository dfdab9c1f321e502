"""Two real ranks over gloo, started once: loss, gradient, weights and files are those of one process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from burnish.errors import DataError
from burnish.parallel.mesh import Mesh
from burnish.parallel.ranks import ALONE
from burnish.recipe.load import load_recipe
from burnish.training import step
from burnish.training.directory import RunDirectory
from burnish.training.run import prepare, train
from burnish.training.step import Abandoned, _in_turn, take_step
from tests.conftest import conversation, write_jsonl
from tests.parallel.gang import Job, apart, do_steps, gang, results
from tests.parallel.invariance import keys_of

ModelDirectory = Callable[[str], Path]

CASES: dict[str, dict[str, Any]] = {
    "replicate-full": {"data_parallel": "replicate", "adapter": "full"},
    "replicate-lora": {"data_parallel": "replicate", "adapter": "lora", "lora_dropout": 0.2},
    "shard-full": {"data_parallel": "shard", "adapter": "full"},
    "shard-qlora": {"data_parallel": "shard", "adapter": "qlora"},
    "context-full": {"context_parallel": 2, "adapter": "full"},
    "context-shard-lora": {"context_parallel": 2, "data_parallel": "shard", "adapter": "lora"},
}
"""Packed and accumulated: 7 rows an update, 2 in a pack, so that one rank always has more than the other."""


GUARD = {"act": "best", "probes": [{"path": "text", "rows": 4}], "kl_to_base": 0.1}
RUNS: dict[str, dict[str, Any]] = {
    "replicate": {"adapter": "lora", "forgetting": GUARD},
    "shard": {"adapter": "lora"},
    "shard-qlora": {"adapter": "qlora", "data_parallel": "shard", "dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def two(
    model_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Job]]:
    """What two ranks made of each case, and the jobs they were given."""
    out = tmp_path_factory.mktemp("two")
    models = {name: model_directory("wide" if "qlora" in name else "llama") for name in (*CASES, *RUNS)}
    data_file = write_jsonl(out / "rows.jsonl", [conversation(index) for index in range(40)])
    jobs = [
        {"name": name, "kind": "steps", "keys": keys_of(name, models[name], data_file, out, **case)}
        for name, case in CASES.items()
    ]
    for how, more in RUNS.items():
        keys = keys_of(
            f"run-{how}", models[how], data_file, out, **{"data_parallel": how, **more, "max_steps": 3}
        )
        jobs.append({"name": f"run-{how}", "kind": "train", "keys": keys})
    gang(jobs, 2, out)
    return out, {job["name"]: job for job in jobs}


@pytest.mark.parametrize("name", CASES)
def test_loss_gradient_and_ten_updates_of_two_ranks_are_those_of_one_process(
    name: str, two: tuple[Path, dict[str, Job]]
) -> None:
    out, jobs = two
    ours, alone = results(out, jobs[name]), do_steps({**jobs[name]["keys"], "context_parallel": 1})
    assert_same(ours, alone)


def assert_same(ours: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    """Within what fp32 rounds: 1e-6 for a loss and a gradient, 1e-5 for the weights after ten updates."""
    assert apart(ours, alone, "loss") < 1e-5
    assert abs(float(ours["loss"] - alone["loss"])) < 1e-6 * max(1.0, float(alone["loss"]))
    assert apart(ours, alone, "gradient/") < 1e-6
    assert apart(ours, alone, "weight/") < 1e-5
    assert float(ours["held_out"]) == pytest.approx(float(alone["held_out"]), rel=1e-6)


@pytest.mark.parametrize("how", RUNS)
def test_a_run_of_two_ranks_leaves_what_a_run_of_one_leaves(
    how: str, two: tuple[Path, dict[str, Job]], tmp_path: Path
) -> None:
    out, jobs = two
    keys = jobs[f"run-{how}"]["keys"]
    alone = train(load_recipe(None, {**keys, "output_dir": str(tmp_path)})).run
    run = out / f"run-{how}"
    for file in ("final/model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = load_file(run / file), load_file(alone / file)
        assert {name: t.dtype for name, t in ours.items()} == {name: t.dtype for name, t in theirs.items()}
        assert apart(ours, theirs, "") < 1e-5
    names = {path.name for path in run.iterdir() if path.name != ".lock"}
    unseen = {"sharpening.jsonl"} if how.startswith("shard") else set()  # and the run says so
    assert names == {path.name for path in alone.iterdir() if path.name != ".lock"} - unseen
    assert ("sharpening_rows: not looked at" in (run / "events.jsonl").read_text()) == bool(unseen)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ours_of = [(line["kind"], line["step"], line.get("tokens")) for line in lines]
    lines = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    assert ours_of == [(line["kind"], line["step"], line.get("tokens")) for line in lines]
    assert not list(out.glob(".launch-*"))


def test_ranks_that_hold_the_whole_model_guard_it_as_one_process_does(
    two: tuple[Path, dict[str, Job]], tmp_path: Path
) -> None:
    out, jobs = two
    alone = train(load_recipe(None, {**jobs["run-replicate"]["keys"], "output_dir": str(tmp_path)})).run
    for log, names in {
        "forgetting.jsonl": ("loss", "drift", "low"),
        "metrics.jsonl": ("kl_to_base",),
    }.items():
        ours, theirs = (RunDirectory(run).lines(log) for run in (out / "run-replicate", alone))
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert [mine.get(name) for name in names] == pytest.approx(
                [other.get(name) for name in names], abs=1e-5
            )
    assert RunDirectory(out / "run-replicate").read("summary.json")["final_step"] == 3


def test_a_rank_with_fewer_packs_asks_as_often_and_gives_up_at_the_same_turn() -> None:
    packs: Any = ["aaa", "bb", "c"]  # one goes to the first rank, two to the second

    def computed(rank: int, stop_at: int, asks_first: bool) -> tuple[list[int], int]:
        asked: list[bool] = []
        ranks = dataclasses.replace(ALONE, rank=rank, mesh=Mesh(replicate=2))
        done: list[int] = []

        def interrupted() -> bool:
            asked.append(True)
            return len(asked) == stop_at

        with contextlib.suppress(Abandoned):
            done += (share.number for share in _in_turn(packs, ranks, interrupted, asks_first=asks_first))
        return done, len(asked)

    assert [computed(rank, 9, True) for rank in (0, 1)] == [([0], 2), ([1, 2], 2)]
    assert [computed(rank, 9, False) for rank in (0, 1)] == [([0], 1), ([1, 2], 1)]
    assert [computed(rank, 1, True)[1] for rank in (0, 1)] == [1, 1]


def test_ranks_whose_packs_do_not_make_up_the_batch_are_found_out(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    session = prepare(load_recipe(None, keys_of("x", model_directory("llama"), data_file, tmp_path)).recipe)
    session.ranks = dataclasses.replace(
        session.ranks, mesh=dataclasses.replace(session.ranks.mesh, replicate=2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributed.all_reduce", lambda values: None)
        with pytest.raises(DataError, match="the ranks' packs weigh"):
            take_step(session)


def test_a_mean_of_the_ranks_means_would_be_caught(
    two: tuple[Path, dict[str, Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, jobs = two
    job = jobs["replicate-full"]
    whole_batch = step.total_weight
    monkeypatch.setattr(step, "total_weight", lambda packs: whole_batch(packs) * 1.001)
    spoiled = do_steps(job["keys"])
    with pytest.raises(AssertionError):
        assert_same(results(out, job), spoiled)


def test_torch_is_alone_here() -> None:
    assert not torch.distributed.is_initialized()
