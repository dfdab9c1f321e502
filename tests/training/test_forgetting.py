"""The guard measures what was forgotten, and each of its acts does what it says."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from burnish.checkpoint.files import load_checkpoint
from burnish.data.replay import further_replay, share_at
from burnish.errors import DataError, UsageError
from burnish.recipe.load import load_recipe
from burnish.training import observe
from burnish.training.again import repeat_last_interval
from burnish.training.directory import RunDirectory
from burnish.training.events import Warned
from burnish.training.forgetting import MOST_REPLAY, Point, choose, front, paired_t, raised
from burnish.training.observe import open_observers
from burnish.training.probes import SAMPLE_TOKENS
from burnish.training.run import RunResult, prepare, resume, train
from burnish.training.step import take_step
from tests.conftest import write_jsonl
from tests.training.test_run import final_weights, interrupting, recipe

ModelDirectory = Callable[..., Path]
BUDGET_OF_BEST = 0.15
"""Crossed half-way at the rate of `best`, and held-out loss goes on falling for a while behind it."""
RAISED = "replay is raised from 10.0% to 20.0% of the graded tokens"
OTHERS = "The {} was {} that year, and nobody in the village could say why it had been so for so long."


def lines(run: Path, name: str = "forgetting.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def share_of_replay(steps: Iterable[dict[str, Any]]) -> float:
    pairs = [(line["source_tokens"].get("1", 0), line["graded_tokens"]) for line in steps]
    return float(sum(replayed for replayed, _ in pairs) / sum(all_of_it for _, all_of_it in pairs))


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """Eight rows that all say the same: what else there is, is forgotten."""
    rows = [
        {"messages": [{"role": "user", "content": f"{k}?"}, {"role": "assistant", "content": "It is so."}]}
        for k in range(8)
    ]
    return write_jsonl(tmp_path / "narrow.jsonl", rows)


@pytest.fixture(scope="session")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["mill", "well", "barn", "gate", "lane", "hill", "wood", "moor"]
    return write_jsonl(
        tmp_path_factory.mktemp("general") / "general.jsonl",
        [{"text": OTHERS.format(word, other)} for word in words for other in words if word != other],
    )


@pytest.fixture(scope="session")
def knowing(model_directory: ModelDirectory, general: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows the general text: there is something to forget."""
    keys = {"learning_rate": 1e-2, "num_epochs": 6, "sharpening_rows": 0}
    return train(recipe(model_directory("llama"), general, tmp_path_factory.mktemp("base"), **keys)).final


@pytest.fixture
def forgets(knowing: Path, narrow: Path, general: Path, tmp_path: Path) -> Callable[..., Any]:
    """A recipe that forgets by construction: a high rate on a narrow set."""

    def asked(name: str, **keys: Any) -> Any:
        guard = {"budget": 0.05, "probes": [{"path": str(general), "name": "general", "rows": 24}]}
        settings = {
            "learning_rate": 1e-2,
            "lr_scheduler": "constant",
            "warmup_steps": 0,
            "num_epochs": 12,
            "eval_steps": 3,
            "share_prefixes": False,
            "run_name": name,
            **keys,
            "forgetting": {**guard, **keys.get("forgetting", {})} if keys.get("forgetting") != {} else None,
        }
        return recipe(knowing, narrow, tmp_path / "runs", **settings)

    return asked


def warns_and_changes_nothing(forgets: Any, general: Path, data_file: Path) -> None:
    plain, guarded = train(forgets("plain", forgetting={})), train(forgets("guarded"))
    measured = lines(guarded.run)
    assert [line["step"] for line in measured] == [0, 3, 6, 9, 12]
    first, last = measured[0], measured[-1]
    assert first["drift"] == 0.0 and not first["breached"] and first["act"] is None
    assert last["breached"] and last["act"] == "warn" and last["low"] > last["budget"] == 0.05
    assert last["drift"] == pytest.approx(last["loss"] - last["base_loss"])
    warned = [line["why"] for line in lines(guarded.run, "events.jsonl") if line["event"] == "warned"]
    assert sum("forgetting: general" in why for why in warned) == sum(line["breached"] for line in measured)
    for name, weight in final_weights(plain.run).items():
        assert torch.equal(weight, final_weights(guarded.run)[name]), name


def raises_replay_from_the_next_update_on(forgets: Any, general: Path, data_file: Path) -> None:
    replay = {"replay": {"path": str(general), "share": 0.1, "max_length": 8}}
    left = train(forgets("left", **replay))
    helped = train(forgets("helped", **replay, forgetting={"act": "replay"}))
    acted = [line for line in lines(helped.run) if line["act"] == "replay"]
    since = acted[0]["step"]
    assert acted and acted[0]["detail"] == RAISED
    steps = [line for line in lines(helped.run, "metrics.jsonl") if line["kind"] == "train"]
    before = share_of_replay(line for line in steps if line["step"] <= since)
    behind = share_of_replay(line for line in steps if since < line["step"] <= since + 6)
    assert before < 0.16 and before + 0.05 < behind < 0.5
    assert lines(helped.run)[-1]["drift"] < lines(left.run)[-1]["drift"]
    assert lines(left.run)[since // 3]["drift"] == lines(helped.run)[since // 3]["drift"]


def stops_at_the_first_breach_for_good(forgets: Any, general: Path, data_file: Path) -> None:
    result = train(forgets("stopped", forgetting={"act": "stop"}))
    last = lines(result.run)[-1]
    assert (result.stopped_by, result.steps) == ("forgetting", last["step"])
    assert last["act"] == "stop" and result.steps < 12 and result.final_step == result.steps
    assert not any(line["breached"] for line in lines(result.run)[:-1])
    again = resume(result.run)
    assert (again.steps, again.stopped_by) == (result.steps, "forgetting")


def keeps_the_best_checkpoint_within_the_budget(forgets: Any, general: Path, data_file: Path) -> None:
    keys = {"eval_steps": 1, "val_datasets": str(data_file), "learning_rate": 1e-3}
    result = train(forgets("best", **keys, forgetting={"act": "best", "budget": BUDGET_OF_BEST}))
    measured = lines(result.run)
    assert result.stopped_by == "finished" and any(line["act"] == "best" for line in measured)
    within = [line for line in measured if line["step"] and not line["breached"]]
    assert within and measured[-1]["breached"], "the run must cross its budget on the way"
    expected = min(within, key=lambda line: line["task_loss"])
    assert expected["task_loss"] > min(line["task_loss"] for line in measured), (
        "a better one lies past the budget"
    )
    assert result.final_step == expected["step"] < 12
    kept = load_checkpoint(result.run / "checkpoints" / f"step-{result.final_step:08d}").weights
    for name, weight in final_weights(result.run).items():
        if name in kept:
            assert torch.equal(weight, kept[name]), name
    assert json.loads((result.run / "summary.json").read_text())["final_step"] == result.final_step


ACTS: dict[str, Callable[[Any, Path, Path], None]] = {
    "warn": warns_and_changes_nothing,
    "replay": raises_replay_from_the_next_update_on,
    "stop": stops_at_the_first_breach_for_good,
    "best": keeps_the_best_checkpoint_within_the_budget,
}


@pytest.mark.parametrize("act", ACTS)
def test_each_act_does_what_it_says_on_a_run_that_forgets(
    act: str, forgets: Any, general: Path, data_file: Path
) -> None:
    ACTS[act](forgets, general, data_file)


def mute(session: Any, guard: Any) -> Any:
    return (event for event in MEASURED(session, guard) if not isinstance(event, Warned))


def goes_on(session: Any, guard: Any, past: Any) -> tuple[str, str]:
    said = ACTED(session, guard, past)
    session.state.stopped_by = None
    return said


MEASURED, ACTED = observe._guarded, observe._act
DISABLED: dict[str, tuple[str, Any]] = {
    "warn": ("_guarded", mute),
    "replay": ("_raise_replay", lambda session: ("replay", RAISED)),
    "stop": ("_act", goes_on),
    "best": ("choose", lambda points: min(points, key=lambda point: point.task_loss)),
}
"""Each act as it would be if it said that it had done it, and had not."""


@pytest.mark.parametrize("act", ACTS)
def test_an_act_that_only_says_so_is_seen(
    act: str, forgets: Any, general: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, *DISABLED[act])
    with pytest.raises(AssertionError):
        ACTS[act](forgets, general, data_file)


def test_the_base_s_losses_are_those_of_plain_transformers(forgets: Any) -> None:
    result = train(forgets("base", num_epochs=1, forgetting={"probes": ["text", "instructions", "samples"]}))
    kept = json.loads((result.run / "probes.json").read_text())
    names = [probe["name"] for probe in kept["probes"]]
    assert names == ["text", "instructions", "samples"]
    session = prepare(forgets("again").recipe)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        session.recipe.model, dtype=torch.float32
    ).eval()
    model.resize_token_embeddings(len(session.tokenizer), mean_resizing=False)
    model.load_state_dict(session.model.state_dict())
    for probe in kept["probes"]:
        assert len(probe["rows"]) == len(probe["base"]) == (64 if probe["name"] == "samples" else 24)
        for row, said in list(zip(probe["rows"], probe["base"], strict=True))[:4]:
            ids, weights = torch.tensor([row["ids"]]), torch.tensor(row["weights"])[1:]
            with torch.no_grad():
                nll = -model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            assert said == pytest.approx(float((nll * weights).sum() / weights.sum()), rel=1e-4)
    drawn = kept["probes"][2]["rows"]
    assert all(2 <= len(row["ids"]) <= SAMPLE_TOKENS + 1 for row in drawn)
    assert len({tuple(row["ids"]) for row in drawn}) > 30


def test_a_base_that_is_asked_after_the_first_updates_is_another_base_and_is_seen(
    forgets: Any, tmp_path: Path
) -> None:
    session = prepare(forgets("late").recipe)
    open_observers(session, RunDirectory(tmp_path), keep=False)
    assert session.guard is not None
    asked_in_time = session.guard
    for _ in range(4):
        take_step(session)
    open_observers(session, RunDirectory(tmp_path), keep=False)
    assert asked_in_time.measure(session.forward)[0].breached
    assert session.guard.measure(session.forward)[0].drift == 0.0
    assert session.guard.as_dict()["probes"][0]["base"] != asked_in_time.as_dict()["probes"][0]["base"]


@pytest.mark.parametrize(
    "more",
    [
        {"act": "replay"},
        {"act": "best", "probes": ["samples"], "kl_to_base": 0.3},
    ],
    ids=str,
)
def test_an_interrupted_guarded_run_comes_to_the_same_bits_and_the_same_lines(
    more: dict[str, Any], forgets: Any, general: Path
) -> None:
    keys: dict[str, Any] = {
        "val_set_size": 2, "save_steps": 2, "replay": {"path": str(general), "share": 0.1, "max_length": 32},
        "forgetting": more,
    }  # fmt: skip
    if "kl_to_base" in more:
        keys |= {"adapter": "lora", "lora_dropout": 0.1}
    straight = train(forgets("straight", **keys))
    stopped = train(forgets("stopped", **keys), show=interrupting(7))
    assert stopped.stopped_by == "interrupted"
    resumed = resume(stopped.run)
    for name in ("forgetting.jsonl", "sharpening.jsonl", "probes.json"):
        assert (straight.run / name).read_bytes() == (resumed.run / name).read_bytes(), name
    assert straight.final_step == resumed.final_step
    for name, weight in final_weights(straight.run).items():
        assert torch.equal(weight, final_weights(resumed.run)[name]), name
    assert repeat_last_interval(resumed.run).differences == []


def test_what_an_act_needs_is_asked_for_before_anything_is_read(forgets: Any) -> None:
    with pytest.raises(UsageError, match="raises the share of `replay`, and there is none"):
        forgets("a", forgetting={"act": "replay"})
    with pytest.raises(UsageError, match="say val_set_size or val_datasets"):
        forgets("b", forgetting={"act": "best"})
    with pytest.raises(UsageError, match="second model in memory"):
        forgets("c", forgetting={"kl_to_base": 0.1})
    with pytest.raises(UsageError, match="twice"):
        forgets("d", forgetting={"probes": ["text", "text"]})


def test_a_probe_without_two_rows_is_refused(forgets: Any, tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": "One row, and no interval."}])
    with pytest.raises(DataError, match="at least two rows"):
        train(forgets("one", forgetting={"probes": [str(one)]}))


def test_paths_of_probes_are_found_beside_the_recipe_and_kept(tmp_path: Path, general: Path) -> None:
    general = Path(shutil.copy(general, tmp_path))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: marble\ndatasets: general.jsonl\nforgetting:\n  probes: [text, {path: general.jsonl}]\n"
    )
    guard = load_recipe(path).recipe.forgetting
    assert guard is not None and guard.probes[0].path == "text"
    assert Path(guard.probes[1].path).resolve() == general.resolve()


def test_the_interval_is_student_s_and_covers() -> None:
    values = np.array([0.1, 0.4, -0.2, 0.3, 0.0, 0.2])
    low, high = paired_t(values)
    half = 2.5706 * values.std(ddof=1) / math.sqrt(6)  # the 97.5% quantile with 5 degrees of freedom
    assert (high - low) / 2 == pytest.approx(half, rel=0.01)
    random = np.random.default_rng(0)
    covered = [low <= 0.3 <= high for low, high in (paired_t(random.normal(0.3, 1, 24)) for _ in range(2000))]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_choice_is_the_best_within_the_budget_and_lies_on_the_front() -> None:
    points = [
        Point(1, 2.0, 0.1, False),
        Point(2, 1.5, 0.8, False),
        Point(3, 1.6, 0.9, False),
        Point(4, 1.2, 1.7, True),
    ]
    assert [point.step for point in front(points)] == [1, 2, 4]
    assert choose(points) == points[1] and choose(points) in front(points)
    assert choose([points[3], Point(5, 1.0, 2.0, True)]) == points[3]
    assert choose([]) is None


def test_a_share_is_doubled_up_to_a_half() -> None:
    assert [raised(0.02), raised(0.2), raised(0.4)] == [0.07, 0.4, MOST_REPLAY]
    assert [share_at([[4, 0.2], [8, 0.4]], step) for step in (3, 4, 7, 8)] == [None, 0.2, 0.2, 0.4]


def test_further_replay_is_a_function_of_the_step_and_keeps_the_share_over_updates(
    forgets: Any, general: Path
) -> None:
    session = prepare(forgets("s", replay={"path": str(general), "share": 0.1, "max_length": 16}).recipe)
    graded = session.data.train.row_graded
    for share in (0.2, 0.5):
        task = replayed = 0
        for step in range(session.plan.num_steps):
            more = further_replay(session.plan, graded, step, share=share, seed=1)
            assert more == further_replay(session.plan, graded, step, share=share, seed=1)
            together = np.array(session.plan.rows_of(step) + more)
            task += graded[together[together < 8]].sum()
            replayed += graded[together[together >= 8]].sum()
        assert replayed / (task + replayed) == pytest.approx(share, abs=0.06)
    first = further_replay(session.plan, graded, 0, share=0.5, seed=1)
    assert first != further_replay(session.plan, graded, 1, share=0.5, seed=1)


def test_a_run_without_a_guard_keeps_no_file_of_it(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    result: RunResult = train(
        recipe(model_directory(), data_file, tmp_path, sharpening_rows=0, val_set_size=8)
    )
    assert not any(
        (result.run / name).exists() for name in ("forgetting.jsonl", "probes.json", "sharpening.jsonl")
    )
