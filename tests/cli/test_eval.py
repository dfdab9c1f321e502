"""`burnish eval`: a run measured beside its base and kept, given answers judged, runs compared, errors that teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Burnish
from tests.conftest import conversation, write_jsonl

from burnish.evaluation import harness
from burnish.recipe.load import load_recipe
from burnish.training.run import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_directory: Any) -> Path:
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("eval")
    data = write_jsonl(folder / "train.jsonl", [conversation(k) for k in range(40)])
    settings = {
        "model": str(model_directory()), "datasets": str(data), "output_dir": str(folder), "run_name": "r",
        "max_steps": 2, "val_set_size": 6, "max_length": 256,
    }  # fmt: skip
    return train(load_recipe(None, settings)).run


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_run_is_measured_beside_its_base_and_the_result_is_kept(burnish: Burnish, trained: Path) -> None:
    ran = burnish("eval", str(trained), "--base", "--max-new-tokens", "6", "--json")
    assert ran.code == 0, ran.err
    tuned, base = lines(ran.out)
    assert (tuned["model"], tuned["step"], base["model"], base["step"]) == ("tuned", 2, "base", 0)
    assert tuned["dataset"] == "held-out" and tuned["rows"] == 6 and tuned["contamination"]["of"] == 6
    assert {"loss", "perplexity", "bits_per_byte", "token_accuracy", "exact_match", "stop_rate"} <= tuned[
        "metrics"
    ].keys()
    logged = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    evals = [line["loss"] for line in logged if line["kind"] == "eval"]
    assert tuned["metrics"]["loss"]["value"] == pytest.approx(evals[-1], rel=2e-2)
    kept = json.loads((trained / "evals.json").read_text())
    assert kept["version"] == 1 and [one["model"] for one in kept["evaluations"]][-2:] == ["tuned", "base"]
    assert 1 <= len(kept["evaluations"][-1]["samples"]) <= 20
    assert {"prompt", "answer", "expected", "correct"} <= kept["evaluations"][-1]["samples"][0].keys()


def test_a_set_that_was_trained_on_is_said_beside_its_score(
    burnish: Burnish, trained: Path, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"What of the moon, number {k}?", "expected": "x", "metric": "contains"}
        for k in (1, 13, 25, 37, 999)
    ]
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    ran = burnish("eval", str(trained), str(path), "--max-new-tokens", "4")
    assert ran.code == 0 and "of 5 rows share 13 words" in ran.out
    found = json.loads((trained / "evals.json").read_text())["evaluations"][-1]["contamination"]
    assert 1 <= found["rows"] <= 4 and found["of"] == 5  # some of them may be held out
    compared = burnish("eval", "--compare", str(trained), str(trained))
    assert compared.code == 0 and "q.jsonl" in compared.out and "contains" in compared.out


def test_given_answers_are_judged_without_a_model(burnish: Burnish, tmp_path: Path) -> None:
    rows = [{"prompt": "a", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
            {"prompt": "b", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}]  # fmt: skip
    path = write_jsonl(tmp_path / "if.jsonl", rows)
    answers = write_jsonl(
        tmp_path / "a.jsonl", [{"prompt": "b", "response": "x"}, {"prompt": "a", "response": "x"}]
    )
    out = tmp_path / "evals.json"
    ran = burnish("eval", "mine", str(path), "--outputs", str(answers), "--out", str(out), "--json")
    assert ran.code == 0, ran.err
    (found,) = lines(ran.out)
    assert found["metrics"]["ifeval_prompt_strict"]["value"] == 0.5 and found["contamination"] is None
    assert json.loads(out.read_text())["evaluations"][0]["model"] == "mine"
    short = write_jsonl(tmp_path / "s.jsonl", [{"prompt": "b", "response": "x"}])
    assert burnish("eval", "mine", str(path), "--outputs", str(short)).code == 3


def test_what_cannot_be_evaluated_says_what_to_write(
    burnish: Burnish, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_directory: Any
) -> None:
    nothing = burnish("eval", str(model_directory()))
    assert nothing.code == 2 and "test.jsonl" in nothing.err
    path = write_jsonl(tmp_path / "q.jsonl", [{"prompt": "a", "expected": "b"}])
    assert "not a run directory" in burnish("eval", str(model_directory()), str(path), "--base").err
    empty = tmp_path / "none"
    empty.mkdir()
    (empty / "resolved.yaml").write_text("model: marble\n")
    assert "no evaluations" in burnish("eval", "--compare", str(empty)).err
    (empty / "evals.json").write_text("[]")
    assert "evals.json" in burnish("eval", "--compare", str(empty)).err
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    refused = burnish("eval", str(trained), "--lm-task", "arc_easy")
    assert refused.code == 2 and "pip install 'burnish[eval]'" in refused.err


@pytest.mark.slow
def test_a_task_of_the_harness_over_local_files_runs_offline(
    burnish: Burnish, trained: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    data = write_jsonl(tmp_path / "d.jsonl", [{"q": f"Is {k} odd?", "gold": k % 2} for k in range(8)])
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: "
        f"{data}\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{{{q}}}}'\n"
        "doc_to_choice: ['no', 'yes']\ndoc_to_target: gold\nmetric_list:\n  - metric: acc\n"
    )
    ran = burnish("eval", str(trained), "--lm-task", "mine", "--lm-tasks-dir", str(tmp_path), "--json")
    assert ran.code == 0, ran.err
    (found,) = lines(ran.out)
    assert found["dataset"] == "lm-eval:mine" and found["metrics"]["acc"]["interval"] == "wilson"
    assert found["rows"] == 8
    unknown = burnish("eval", str(trained), "--lm-task", "no_such", "--lm-tasks-dir", str(tmp_path))
    assert unknown.code == 2 and "no_such" in unknown.err
