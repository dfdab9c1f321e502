"""Two, three and four ranks, everything crossed: sharding, method, trees, uneven rows, accumulation. Minutes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from burnish.recipe.load import load_recipe
from burnish.training.directory import RunDirectory
from burnish.training.run import train
from tests.parallel.gang import apart, do_steps, gang, results
from tests.parallel.invariance import LAYOUTS, alone, differences, jobs_of, keys_of, make_rows
from tests.parallel.test_ranks import assert_same

pytestmark = pytest.mark.slow

ModelDirectory = Callable[[str], Path]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uneven rows, of which several ask the same long question, so that trees share it."""
    return make_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.fixture(scope="module")
def one(
    model_directory: ModelDirectory, rows: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Tensor]]:
    """One process's results by method."""
    return alone(model_directory("llama"), rows, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("size", LAYOUTS)
def test_everything_crossed_is_what_one_process_computes(
    size: int,
    one: dict[str, dict[str, Tensor]],
    model_directory: ModelDirectory,
    rows: Path,
    tmp_path: Path,
) -> None:
    jobs = jobs_of(LAYOUTS[size], model_directory("llama"), rows, tmp_path)
    gang(jobs, size, tmp_path, limit=900)
    for job in jobs:
        found = differences(results(tmp_path, job), one[job["name"].partition(": ")[2]])
        print(size, job["name"], {part: f"{figure:.1e}" for part, figure in found.items()})
        near = 1e-5 if "context" in job["name"] else 1e-6
        assert max(found["loss"], found["gradient"]) < near
        assert found["weights"] < 1e-5


def test_more_ranks_than_packs_leave_some_idle_and_nothing_hangs(
    model_directory: ModelDirectory, rows: Path, tmp_path: Path
) -> None:
    jobs = [
        {
            "name": how,
            "kind": "steps",
            "keys": keys_of(
                how,
                model_directory("llama"),
                rows,
                tmp_path,
                data_parallel=how,
                micro_batch_size=7,
                max_steps=2,
            ),
        }
        for how in ("replicate", "shard")
    ]
    gang(jobs, 3, tmp_path)
    for job in jobs:
        assert_same(results(tmp_path, job), do_steps(job["keys"]))


def test_offload_on_a_cpu_and_a_base_in_four_bits_on_several_ranks_are_as_one_process(
    model_directory: ModelDirectory, rows: Path, tmp_path: Path
) -> None:
    """Four bits are replicated: shards of them are refused (tests/training/test_launching.py)."""
    cases = {
        "offload": {"data_parallel": "shard", "cpu_offload": True},
        "offload-lora": {"data_parallel": "shard", "cpu_offload": True, "adapter": "lora"},
        "four-bits": {"adapter": "qlora"},
        "four-bits-shard": {"adapter": "qlora", "data_parallel": "shard", "gradient_checkpointing": True},
        "four-bits-context": {"adapter": "qlora", "context_parallel": 2},
    }
    jobs = [
        {
            "name": name,
            "kind": "steps",
            "keys": keys_of(
                name, model_directory("wide" if "bits" in name else "llama"), rows, tmp_path, **keys
            ),
        }
        for name, keys in cases.items()
    ]
    gang(jobs, 2, tmp_path)
    for job in jobs:
        assert_same(results(tmp_path, job), do_steps({**job["keys"], "context_parallel": 1}))


@pytest.mark.parametrize("family", ["wide", "gpt_neox"])
def test_models_that_go_through_their_own_modules_are_sharded_too(
    family: str, model_directory: ModelDirectory, rows: Path, tmp_path: Path
) -> None:
    keys = keys_of(
        family, model_directory(family), rows, tmp_path, data_parallel="shard", gradient_checkpointing=True
    )
    job = {"name": family, "kind": "steps", "keys": keys}
    gang([job], 2, tmp_path)
    assert_same(results(tmp_path, job), do_steps(keys))


def test_an_adapter_of_four_sharded_ranks_loads_in_stock_peft_and_is_that_of_one_process(
    model_directory: ModelDirectory, rows: Path, tmp_path: Path
) -> None:
    model = model_directory("llama")
    keys = keys_of("run", model, rows, tmp_path / "four", adapter="lora", data_parallel="shard")
    gang([{"name": "run", "kind": "train", "keys": keys}], 4, tmp_path / "four")
    alone = train(load_recipe(None, {**keys, "output_dir": str(tmp_path / "one")})).run
    ours = load_file(tmp_path / "four" / "run" / "adapter" / "adapter_model.safetensors")
    assert apart(ours, load_file(alone / "adapter" / "adapter_model.safetensors"), "") < 1e-5
    logits = []
    for run in (tmp_path / "four" / "run", alone):
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        base.resize_token_embeddings(386, mean_resizing=False)
        with torch.no_grad():
            logits.append(PeftModel.from_pretrained(base, run / "adapter")(torch.arange(1, 40)[None]).logits)
    assert float((logits[0] - logits[1]).abs().max()) < 1e-4


@pytest.mark.parametrize("how", ["replicate", "shard", "shard, qlora"])
@pytest.mark.parametrize("again", [1, 2, 4])
def test_a_run_saved_on_two_ranks_goes_on_with_any_number(
    again: int, how: str, model_directory: ModelDirectory, rows: Path, tmp_path: Path
) -> None:
    kind, _, method = how.partition(", ")
    more = {"data_parallel": kind, "adapter": method or "full"}
    model = model_directory("wide" if method else "llama")
    keys = keys_of("run", model, rows, tmp_path / "a", save_steps=2, **more)
    keys["lr_scheduler"] = "constant"  # the same rates, however long the run is said to be
    straight = {**keys, "output_dir": str(tmp_path / "straight")}
    gang([{"name": "straight", "kind": "train", "keys": straight}], 2, tmp_path / "s")
    gang([{"name": "begun", "kind": "train", "keys": {**keys, "max_steps": 5}}], 2, tmp_path / "b")
    run = tmp_path / "a" / "run"
    gang(
        [{"name": "more", "kind": "resume", "run": str(run), "overrides": ["max_steps=10"]}],
        again,
        tmp_path / "m",
    )
    ours = load_file(run / "final" / "model.safetensors")
    difference = apart(ours, load_file(tmp_path / "straight" / "run" / "final" / "model.safetensors"), "")
    assert difference == 0.0 if again == 2 else difference < 1e-5


def test_ranks_that_torchrun_starts_again_go_on_with_their_run(
    model_directory: ModelDirectory, rows: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.json"
    keys = keys_of("run", model_directory("llama"), rows, tmp_path, max_steps=300, save_steps=5)
    recipe.write_text(json.dumps(keys))
    words = ["-m", "burnish", "train", str(recipe), "--processes", "2", "--restarts", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = subprocess.Popen([sys.executable, *words], env=environment, start_new_session=True)
    try:
        ends = time.monotonic() + 120
        run = RunDirectory(tmp_path / "run")
        while len(run.lines("metrics.jsonl")) < 20 and time.monotonic() < ends:
            time.sleep(0.05)
        os.kill(process_of_rank(1, str(recipe)), signal.SIGKILL)
        assert launch.wait(timeout=200) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launch.pid, signal.SIGKILL)
    steps = [line["step"] for line in run.lines("metrics.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, 301))


def process_of_rank(rank: int, word: str) -> int:
    """The process of a launch on this machine that is told it is of this rank, by a word of its command line."""
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            said = (place / "environ").read_bytes().split(b"\0") if place.name.isdigit() else []
            if f"RANK={rank}".encode() in said and word.encode() in (place / "cmdline").read_bytes():
                return int(place.name)
    raise AssertionError(f"no rank {rank}")
