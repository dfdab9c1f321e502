"""Whole updates with the tokens of each pack shared out, on four ranks, beside one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.errors import UsageError
from burnish.recipe.load import load_recipe
from burnish.training.run import train
from tests.parallel.gang import Job, do_steps, gang, results
from tests.parallel.invariance import keys_of
from tests.parallel.test_ranks import assert_same

CASES: dict[str, dict[str, Any]] = {
    "full": {"context_parallel": 4},
    "lora": {"context_parallel": 4, "adapter": "lora"},
    "shard-full": {"context_parallel": 2, "data_parallel": "shard"},
    "shard-4-lora": {"context_parallel": 4, "data_parallel": "shard", "adapter": "lora"},
    "replicas": {"context_parallel": 2},
    "packed": {"context_parallel": 2, "share_prefixes": False, "gradient_checkpointing": True},
    "hybrid": {"context_parallel": 1, "data_parallel": "hybrid"},
}


@pytest.mark.slow
def test_loss_gradient_and_ten_updates_on_shares_of_packs_are_those_of_one_process(
    model_directory: Callable[[str], Path], data_file: Path, tmp_path: Path
) -> None:
    model = model_directory("llama")
    jobs: dict[str, Job] = {
        name: {"name": name, "kind": "steps", "keys": keys_of(name, model, data_file, tmp_path, **case)}
        for name, case in CASES.items()
    }
    gang(list(jobs.values()), 4, tmp_path)
    for name, job in jobs.items():
        keys = {
            **job["keys"],
            "context_parallel": 1,
            "data_parallel": "replicate",
            "run_name": f"{name}-alone",
        }
        assert_same(results(tmp_path, job), do_steps(keys))


def test_one_process_that_is_asked_to_share_its_packs_is_told_how_many_it_takes(
    model_directory: Callable[[str], Path], data_file: Path, tmp_path: Path
) -> None:
    keys = keys_of("x", model_directory("llama"), data_file, tmp_path, context_parallel=2)
    with pytest.raises(UsageError, match="start a multiple of 2 ranks"):
        train(load_recipe(None, keys))
