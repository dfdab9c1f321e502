"""The harness: its arithmetic by hand, its refusal to compare unequal runs, and one small run of burnish's arm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHAPE = {"hidden": 4, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 3, "vocab": 10}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import arithmetic

    import report

    yield arithmetic, report
    for name in ("arithmetic", "report"):
        sys.modules.pop(name, None)


def test_a_shared_prefix_is_counted_once_and_a_branch_point_predicts_once(modules: Any) -> None:
    arithmetic, _ = modules
    alone = arithmetic.necessary([[1, 2, 3]], [[0, 0, 1]], SHAPE)
    both = arithmetic.necessary([[1, 2, 3], [1, 2, 4]], [[0, 0, 1], [0, 0, 1]], SHAPE)
    assert (alone.tokens, alone.distinct_tokens) == (3, 3)
    assert (both.tokens, both.distinct_tokens) == (6, 4)
    # a token 2 x (4x8 + 4x4 + 4x6 + 3x4) = 168; a pair of query and key 4 x 4 = 16; a row of logits 2 x 4 x 10 = 80
    assert alone.full == 3 * (3 * 168 + 6 * 16 + 80)
    assert both.full == 3 * (4 * 168 + 9 * 16 + 80)


def test_lora_saves_the_weight_gradients_of_the_base_alone(modules: Any) -> None:
    arithmetic, _ = modules
    step = arithmetic.necessary([[1, 2, 3]], [[0, 0, 1]], SHAPE, rank=2)
    adapter = 2 * 3 * 2 * (8 + 2 * 6 + 8 + 2 * 7 + 7)
    assert step.lora == 2 * (3 * 168 + 80) + 3 * (6 * 16 + adapter)


def entry(peer_loss: float) -> dict[str, Any]:
    run = {"ready": 1.0, "ends": [2.0, 3.0, 4.0], "losses": [3.0, 2.0, 1.0], "peak": 2**30, "others": 0.0}
    slow = {**run, "ends": [3.0, 7.0, 11.0], "losses": [3.0, 2.0, peer_loss]}
    facts = {
        "sequences": 24,
        "steps": 3,
        "tokens": 60,
        "graded_tokens": 30,
        "source": "data",
        "tokens_by_step": [10, 20, 30],
        "distinct_tokens_by_step": [10, 20, 30],
        "flops_full_by_step": [1.0, 1.0, 1.0],
    }
    return {
        "name": "alpaca, full",
        "method": "full",
        "dtype": "bfloat16",
        "facts": facts,
        "runs": {"trl-best": [slow], "burnish": [run]},
    }


def test_a_ratio_is_over_the_same_steps_after_the_first(modules: Any) -> None:
    _, report = modules
    assert report.ratios(entry(1.001), "trl-best") == [4.0]
    assert report.rates(entry(1.001), "burnish") == [25.0]


def test_no_ratio_is_given_between_runs_whose_losses_differ(modules: Any) -> None:
    _, report = modules
    peak = {"bfloat16": 1.0, "float32": 1.0}
    assert report.ratios(entry(1.1), "trl-best") is None
    assert "not the same run" in report.case_table(entry(1.1), peak)
    assert "4.00x" in report.case_table(entry(1.001), peak)


def test_a_run_that_others_disturbed_is_left_out_and_counted(modules: Any) -> None:
    _, report = modules
    told = entry(1.001)
    disturbed = {**told["runs"]["burnish"][0], "ends": [9.0, 90.0, 900.0], "others": 0.4}
    told["runs"]["burnish"].append(disturbed)
    assert report.ratios(told, "trl-best") == [4.0]
    result = {
        "name": "s30", "shape": "s30", "date": "", "commit": "", "machine": "", "keys": [], "cases": [told],
        "gemm_peak": {"bfloat16": 1e9, "float32": 1e9}, "versions": {"burnish": {}}, "thrown_away": 1,
    }  # fmt: skip
    assert "2 of 4 runs are left out" in report.header(result) and "Do not quote" not in report.header(result)
    told["runs"]["burnish"] = [disturbed]
    assert "Do not quote" in report.header(result)


def test_a_run_that_others_disturbed_is_made_again_at_most_twice(
    modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import arms
    import measure
    import run

    loads = iter([0.3, 0.0, 0.3, 0.3, 0.4, 0.0])
    monkeypatch.setattr(run, "start", lambda *_: measure.Watched(others=next(loads)))
    bench = arms.Bench(Path(), Path(), {})
    case = arms.Case("alpaca")
    assert [run.undisturbed(bench, "burnish", case, 5, "round").others for _ in range(2)] == [0.0, 0.4]
    assert bench.thrown_away == 3 and next(loads) == 0.0
    for name in ("arms", "measure", "run"):
        sys.modules.pop(name)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_8b.py", "qlora_70b.py"])
def test_what_waits_for_a_gpu_runs_in_small_without_one(script: str) -> None:
    words = [sys.executable, str(BENCHMARKS / "gpu" / script), "--smoke"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.slow
def test_burnish_s_arm_of_the_smoke_run_trains_and_is_reported(tmp_path: Path) -> None:
    words = ["--smoke", "--arms", "burnish", "--cases", "alpaca, full", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "results" / "tiny.json").read_text())
    (run,) = result["cases"][0]["runs"]["burnish"]
    assert len(run["ends"]) == len(run["losses"]) == 2
    assert 0 < run["ready"] < run["ends"][0] < run["ends"][1] <= run["whole"]
    assert run["peak"] > 2**26
    assert "| burnish |" in done.stdout


@pytest.mark.slow
def test_the_gpu_script_runs_on_a_toy_and_claims_nothing_without_a_gpu() -> None:
    script = str(BENCHMARKS / "gpu" / "train_8b.py")
    done = subprocess.run([sys.executable, script, "--smoke"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout[done.stdout.index("{") :])
    assert set(figures["sets"]) == {"finetome lengths", "shared prompt"}
    assert all(one["tokens_per_second"] > 0 for one in figures["sets"].values())
