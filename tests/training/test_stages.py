"""Mixtures, replay and stages as a run meets them: what was planned is what is learnt from, killed or not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.data.mixture import Mixture
from burnish.errors import DataError, UsageError
from burnish.recipe.load import load_recipe
from burnish.training.check import check_stages
from burnish.training.events import Event, Stepped
from burnish.training.run import prepare, resume, train
from burnish.training.stages import describe_all
from burnish.training.step import evaluate
from tests.conftest import conversation, write_jsonl
from tests.training.test_run import ModelDirectory, final_weights, interrupting, recipe


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """Conversations in three files, text in two, raw records in one."""
    texts = [
        f"The {word} of the hill number {k} was seen by all. " * 4 for k, word in enumerate("abcdefghijkl")
    ]
    asked = [conversation(index) for index in range(60)]
    return {
        "large": write_jsonl(tmp_path / "large.jsonl", asked[:30]),
        "small": write_jsonl(tmp_path / "small.jsonl", asked[30:36]),
        "unseen": write_jsonl(tmp_path / "unseen.jsonl", asked[36:44]),
        "text": write_jsonl(tmp_path / "text.jsonl", [{"text": text} for text in texts[:6]]),
        "domain": write_jsonl(tmp_path / "domain.jsonl", [{"text": text} for text in texts[6:]]),
        "raw": write_jsonl(tmp_path / "raw.jsonl", [{"sum": f"{k}+1", "value": k + 1} for k in range(8)]),
    }


def staged(model: Path, sources: dict[str, Path], out: Path, **keys: Any) -> Any:
    stages = [
        {
            "name": "read",
            "datasets": str(sources["domain"]),
            "max_steps": 4,
            "learning_rate": 2e-3,
            "val_set_size": 1,
        },
        {
            "name": "answer",
            "datasets": [{"path": str(sources["large"])}, {"path": str(sources["unseen"]), "held_out": True}],
            "replay": {"path": str(sources["text"]), "share": 0.3, "max_length": 24},
            "num_epochs": 2,
            "global_batch_size": 12,
        },
    ]
    return recipe(model, None, out, stages=stages, **{"num_epochs": None, "global_batch_size": 3, **keys})


def test_the_updates_take_of_each_source_what_the_plan_says_and_the_summary_counts(
    model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    asked = recipe(
        model_directory("llama"),
        None,
        tmp_path,
        datasets=[
            {"path": str(sources["large"]), "mix": 3},
            {"path": str(sources["small"]), "name": "few"},
            {"path": str(sources["raw"]), "prompt": ["{{sum}}?", "Add: {{sum}}"], "response": "{{value}}"},
        ],
        mixture="weights",
    )
    tokens: Counter[str] = Counter()

    def count(event: Event) -> None:
        if isinstance(event, Stepped):
            tokens.update({str(source): n for source, n in event.source_tokens.items()})

    result = train(asked, show=count)
    told = {source["name"]: source for source in result.sources}
    assert [source["rows_used"] for source in result.sources] == [30, 10, 10]
    assert told["few"]["asked"] == pytest.approx(0.2)
    assert told["few"]["share_of_rows"] == pytest.approx(0.2)
    assert {str(s["source"]): s["graded_tokens"] for s in result.sources} == dict(tokens)
    plan = json.loads((result.run / "plan.json").read_text())
    assert plan["sources"] == result.sources
    report = check_stages(asked)[""]
    assert report.sources == result.sources


def test_a_held_out_task_is_measured_by_itself_and_never_trained_on(
    model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    both = json.loads(sources["unseen"].read_text().splitlines()[0])
    with sources["large"].open("a") as file:
        file.write(json.dumps(both) + "\n")
    asked = recipe(
        model_directory("llama"),
        None,
        tmp_path,
        datasets=[str(sources["large"]), {"path": str(sources["unseen"]), "held_out": True}],
        val_set_size=4,
    )
    session = prepare(asked.recipe)
    assert set(session.data.train.row_sources.tolist()) == {1}
    assert len(session.data.train) == 26  # 30, one of them twice, 4 held out
    found = evaluate(session)
    assert found.source_tokens.keys() == {0, 1}
    weighted = sum(found.source_loss[k] * found.source_tokens[k] for k in (0, 1)) / found.graded_tokens
    assert found.loss == pytest.approx(weighted, rel=1e-6)
    right = sum(found.source_accuracy[k] * found.source_tokens[k] for k in (0, 1)) / found.graded_tokens
    assert found.accuracy == pytest.approx(right)


def test_an_order_that_strays_from_what_was_asked_is_seen(
    model_directory: ModelDirectory,
    sources: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A planted defect: one row in ten of the large source is swapped for one of the small one."""

    def shares() -> list[tuple[float, float]]:
        given = [{"path": str(sources["large"]), "mix": 3}, {"path": str(sources["small"])}]
        asked = recipe(model_directory("llama"), None, tmp_path, datasets=given, mixture="weights")
        session = prepare(asked.recipe)
        fed: Counter[int] = Counter()
        for step in range(session.plan.num_steps):
            for row in session.plan.rows_of(step):
                fed.update(view.source for view in session.data.train[row])
        told = describe_all(session.stages, session.data.train)
        return [(fed[each["source"]] / fed.total(), each["asked"]) for each in told]

    assert all(abs(got - wanted) < 0.02 for got, wanted in shares())
    order = Mixture.order

    def strayed(self: Mixture, epoch: int, *, seed: int, shuffle: bool) -> Any:
        rows = order(self, epoch, seed=seed, shuffle=shuffle).copy()
        rows[::10] = self.parts[-1].first
        return rows

    monkeypatch.setattr(Mixture, "order", strayed)
    assert not all(abs(got - wanted) < 0.02 for got, wanted in shares())


def test_replay_lies_in_the_same_updates_at_its_share_of_graded_tokens(
    model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    asked = recipe(
        model_directory("llama"),
        sources["large"],
        tmp_path,
        replay={"path": str(sources["text"]), "share": 0.4, "max_length": 16},
        num_epochs=4,
    )
    session = prepare(asked.recipe)
    told = describe_all(session.stages, session.data.train)[-1]
    assert (told["name"], told["asked_of"]) == ("replay", "graded tokens")
    assert told["share_of_graded_tokens"] == pytest.approx(0.4, abs=0.03)
    sources_of = session.data.train.row_sources
    assert all(
        {0, 1} <= set(sources_of[session.plan.rows_of(s)].tolist()) for s in range(session.plan.num_steps)
    )
    replayed = session.data.train[len(session.data.train) - 1][0]
    assert len(replayed) <= 16 and replayed.num_graded == len(replayed) - 1


def test_replay_of_nothing_is_an_error(
    model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    asked = recipe(
        model_directory("llama"),
        sources["text"],
        tmp_path,
        replay={"path": str(sources["text"]), "share": 0.4},
    )
    with pytest.raises(DataError, match="no row of text is left"):
        prepare(asked.recipe)


@pytest.mark.parametrize("stop", [2, 7], ids=["in the first stage", "in the second"])
def test_a_run_in_stages_killed_and_resumed_ends_in_the_very_weights_of_one_that_was_not(
    stop: int, model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    straight = train(staged(model_directory("llama"), sources, tmp_path / "a"))
    stopped = train(staged(model_directory("llama"), sources, tmp_path / "b"), show=interrupting(stop))
    assert (stopped.stopped_by, stopped.steps) == ("interrupted", stop)
    resumed = resume(stopped.run)
    assert resumed.steps == straight.steps
    for name, weight in final_weights(straight.run).items():
        assert torch.equal(weight, final_weights(resumed.run)[name]), name

    def numbers(run: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("seconds", "memory_bytes")} for line in lines]

    assert numbers(straight.run) == numbers(resumed.run)
    plan = json.loads((straight.run / "plan.json").read_text())
    assert [(stage["name"], stage["first_step"]) for stage in plan["stages"]] == [("read", 0), ("answer", 4)]
    # what the first stage held out is measured to the end, beside the task that the second holds out
    last = [line for line in numbers(straight.run) if line["kind"] == "eval"][-1]
    assert set(last["source_loss"]) == set(plan["held_out_sources"]) == {"0", "1"}
    rates = [line["learning_rate"] for line in numbers(straight.run) if line["kind"] == "train"]
    assert max(rates[:4]) == 2e-3 and max(rates[4:]) == 1e-3


def test_a_stage_that_trains_on_what_another_holds_out_is_refused(
    model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    # the same rows in another file, so that neither path nor order tells
    sources["domain"].write_text("".join(reversed(sources["domain"].read_text().splitlines(keepends=True))))
    stages = [
        {"name": "read", "datasets": str(sources["domain"]), "max_steps": 1, "val_set_size": 2},
        {"name": "again", "datasets": [str(sources["large"]), str(sources["text"])], "max_steps": 1},
    ]
    asked = recipe(model_directory("llama"), None, tmp_path, stages=stages, num_epochs=None)
    prepare(asked.recipe)
    both = sources["text"].read_text() + sources["domain"].read_text()
    sources["text"].write_text(both)
    with pytest.raises(DataError, match="stage again trains on 2 of the rows that stage read holds out"):
        prepare(asked.recipe)


def test_one_stage_written_as_a_stage_is_the_run_without(
    model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    keys = {"datasets": str(sources["large"]), "num_epochs": 1}
    bare = train(recipe(model_directory("llama"), sources["large"], tmp_path / "a"))
    one = train(recipe(model_directory("llama"), None, tmp_path / "b", stages=[keys]))
    for name, weight in final_weights(bare.run).items():
        assert torch.equal(weight, final_weights(one.run)[name]), name


def test_two_stages_give_the_rows_and_rates_that_two_runs_of_them_would(
    model_directory: ModelDirectory, sources: dict[str, Path], tmp_path: Path
) -> None:
    session = prepare(staged(model_directory("llama"), sources, tmp_path).recipe)
    first = 0
    for stage in session.stages:
        alone = prepare(stage.recipe)
        for step in range(alone.plan.num_steps):
            ids = [view.input_ids for row in alone.plan.rows_of(step) for view in alone.data.train[row]]
            here = [
                view.input_ids for r in session.plan.rows_of(first + step) for view in session.data.train[r]
            ]
            assert here == ids
            assert session.schedule.rate(first + step) == alone.schedule.rate(step)
        first += alone.plan.num_steps
    assert first == session.plan.num_steps
    origin = session.data.origins[session.data.train[session.plan.rows_of(4)[0]][0].row]
    assert origin.file.endswith(("large.jsonl", "text.jsonl"))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"adapter": "lora"}, "adapter is the run's"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"datsets": "x"}, "no key"),
    ],
    ids=str,
)
def test_a_stage_that_says_what_it_may_not_is_refused_with_what_it_may(
    stage: dict[str, Any], words: str, data_file: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(None, {"model": "marble", "datasets": str(data_file), "stages": [stage]})
    assert words in f"{caught.value.saw} {caught.value.rule}"
