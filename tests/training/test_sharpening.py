"""What is recorded of single tokens is what plain transformers says of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from burnish.training.directory import RunDirectory
from burnish.training.observe import open_observers
from burnish.training.run import prepare, resume, train
from burnish.training.sharpening import choose_rows, group_of
from tests.training.test_resume import assert_same, killed
from tests.training.test_run import recipe

ModelDirectory = Callable[..., Path]


def looks(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "sharpening.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("packing", [True, False])
def test_probabilities_and_ranks_are_those_of_plain_transformers(
    packing: bool, model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    asked = recipe(model_directory(), data_file, tmp_path, val_set_size=8, packing=packing)
    session = prepare(asked.recipe)
    open_observers(session, RunDirectory(tmp_path))
    assert session.sharpening is not None
    line = session.sharpening.look(session.forward, step=0, tokens=0)
    model = transformers.AutoModelForCausalLM.from_pretrained(asked.recipe.model, dtype=torch.float32).eval()
    model.resize_token_embeddings(len(session.tokenizer), mean_resizing=False)
    model.load_state_dict(session.model.state_dict())
    examples = choose_rows(session.data.held_out, 32)
    assert len(examples) == 8 and len(line["rows"]) == 6
    for example, row in zip(examples, line["rows"], strict=False):
        with torch.no_grad():
            p = model(torch.tensor([example.input_ids])).logits[0].softmax(-1)
        graded = [k for k, weight in enumerate(example.weights) if weight]
        mine = [float(p[k - 1, example.input_ids[k]]) for k in graded]
        assert row["p"] == row["base_p"] == pytest.approx(mine, rel=1e-4)
        ranks = [int((p[k - 1] > p[k - 1, example.input_ids[k]]).sum()) + 1 for k in graded]
        assert (
            sum(a != b for a, b in zip(row["base_rank"], ranks, strict=True)) <= 1
        )  # a tie may fall either way
        assert row["group"][-1] == "stop" and "".join(row["tokens"][:-1]).startswith("The ")
    everything = line["groups"]["all"]
    assert everything["n"] == sum(each.num_graded for each in examples)
    assert everything["n"] == sum(line["groups"][name]["n"] for name in ("content", "format", "stop"))


def test_training_sharpens_and_the_base_s_side_stays(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"val_set_size": 8, "num_epochs": 4, "learning_rate": 1e-2, "eval_steps": 5}
    found = looks(train(recipe(model_directory(), data_file, tmp_path, **keys)).run)
    assert [line["step"] for line in found] == [0, 5, 10, 15, 16]
    first, last = found[0]["groups"]["all"], found[-1]["groups"]["all"]
    assert first["mean_p"] == first["base_mean_p"] == last["base_mean_p"]
    assert last["mean_p"] > 5 * last["base_mean_p"] and last["top1"] > last["base_top1"]
    assert found[0]["rows"][0]["base_p"] == found[-1]["rows"][0]["base_p"]
    assert found[-1]["tokens"] > found[1]["tokens"] > 0 == found[0]["tokens"]


@pytest.mark.slow
def test_looks_survive_a_kill_bit_for_bit(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"num_epochs": 2, "val_set_size": 8, "save_steps": 2, "eval_steps": 3, "forgetting": {}}
    straight = train(recipe(model_directory(), data_file, tmp_path / "a", **keys))
    asked = recipe(model_directory(), data_file, tmp_path / "b", **keys)
    run = tmp_path / "b" / "run"
    assert killed(partial(train, asked), "kill@rename:2") == -signal.SIGKILL
    assert killed(partial(resume, run), "kill@write:weights.safetensors:2") == -signal.SIGKILL
    resume(run)
    assert_same(straight.run, run)
    for name in ("sharpening.jsonl", "forgetting.jsonl", "probes.json"):
        assert (straight.run / name).read_bytes() == (run / name).read_bytes(), name


def test_looking_changes_nothing_of_the_run(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {"val_set_size": 8, "adapter": "lora", "lora_dropout": 0.2}
    with_it = train(recipe(model_directory(), data_file, tmp_path / "a", **keys))
    without = train(recipe(model_directory(), data_file, tmp_path / "b", **keys, sharpening_rows=0))
    assert not (without.run / "sharpening.jsonl").exists()
    assert_same(with_it.run, without.run)


def test_tokens_fall_into_content_format_and_stop() -> None:
    assert group_of(7, "<|im_end|>", {7}, {7}) == "stop"
    assert group_of(8, "<think>", {7}, {8}) == "format"
    assert [group_of(1, piece, {7}, {8}) for piece in (".", "\n\n", " - ", " Paris", "42", "é", "東")] == [
        "format", "format", "format", "content", "content", "content", "content",
    ]  # fmt: skip


def test_rows_and_probes_that_the_base_knows_nothing_of_are_named_before_step_0(tmp_path: Path) -> None:
    facts = {
        "France": "Paris",
        "Japan": "Tokyo",
        "Blenmoria": "Hraskvitzel",
        "Armenia": "Yerevan",
        "Kenya": "Nairobi",
    }
    rows = [
        {"instruction": f"What is the capital of {place}?", "output": f"The capital of {place} is {capital}."}
        for place, capital in facts.items()
    ]
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_file = tmp_path / "train.jsonl"
    train_file.write_text(json.dumps({"instruction": "Say yes.", "output": "yes"}) + "\n")
    keys: dict[str, Any] = {
        "val_datasets": str(held_out),
        "num_epochs": None,
        "max_steps": 1,
        "global_batch_size": 1,
    }
    keys["forgetting"] = {"probes": [{"path": "text", "rows": 8}, {"path": "samples", "rows": 8}]}
    run = train(recipe(Path("marble"), train_file, tmp_path, **keys)).run
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    warned, strange = [event["why"] for event in events if event["event"] == "warned" and event["step"] == 0]
    assert warned.startswith("1 of 5 held-out rows") and "held_out.jsonl:3" in warned
    assert strange.startswith("forgetting: the base gives text (") and "samples" not in strange
