"""A run as its user meets it: the numbers are plain transformers', nothing vanishes, what is killed goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import burnish
from burnish.errors import DataError, Diverged, UsageError
from burnish.kernels import library
from burnish.recipe.load import load_recipe
from burnish.training.events import Event, Ready, Stepped
from burnish.training.run import prepare, resume, train
from burnish.training.session import Session
from burnish.training.step import evaluate, take_step
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[[str], Path]


def recipe(model: Path, data: Path | None, out: Path, **keys: Any) -> Any:
    settings = {
        "model": str(model),
        "datasets": None if data is None else str(data),
        "output_dir": str(out),
        "run_name": "run",
        "dtype": "float32",
        "global_batch_size": 8,
        "learning_rate": 1e-3,
        "num_epochs": 1,
        **keys,
    }
    return load_recipe(None, {key: value for key, value in settings.items() if value is not None})


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def plain_transformers_loss(session: Session, step: int) -> float:
    """One document at a time through a model that burnish's attention never touched, all logits, one division."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        session.recipe.model, dtype=torch.float32
    ).eval()
    model.resize_token_embeddings(len(session.tokenizer), mean_resizing=False)
    model.load_state_dict(session.model.state_dict())
    total = weight = 0.0
    for row in session.plan.rows_of(step):
        for example in session.data.train[row]:
            with torch.no_grad():
                surprise = -model(torch.tensor([example.input_ids])).logits[0].double().log_softmax(-1)
            for k, w in enumerate(example.weights):
                if w:
                    total += w * float(surprise[k - 1, example.input_ids[k]])
                    weight += w
    return total / weight


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_neox", "gpt2"])
def test_the_first_loss_is_that_of_plain_transformers_unpacked_and_unfused(
    family: str, model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    asked = recipe(model_directory(family), data_file, tmp_path, num_epochs=None, max_steps=1)
    expected = plain_transformers_loss(prepare(asked.recipe), step=0)
    train(asked)
    assert losses(tmp_path / "run")[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "cut",
    [{"packing": False}, {"micro_batch_size": 1}, {"micro_batch_size": 3}, {"gradient_checkpointing": True}],
    ids=str,
)
def test_how_a_batch_is_cut_changes_neither_losses_nor_weights(
    cut: dict[str, Any], model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    # SGD's update is linear in the gradient: AdamW's would blow a rounding difference up to the size of a step.
    common = {"num_epochs": 2, "global_batch_size": 16, "optimizer": "sgd"}
    train(recipe(model_directory("llama"), data_file, tmp_path / "a", **common))
    train(recipe(model_directory("llama"), data_file, tmp_path / "b", **common, **cut))
    assert losses(tmp_path / "b" / "run") == pytest.approx(losses(tmp_path / "a" / "run"), rel=2e-6)
    a, b = final_weights(tmp_path / "a" / "run"), final_weights(tmp_path / "b" / "run")
    for name, weight in a.items():
        torch.testing.assert_close(b[name], weight, rtol=1e-5, atol=1e-7)


def test_the_finished_model_answers_and_stops_in_plain_transformers(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "four.jsonl", [conversation(index) for index in range(4)])
    run = burnish.train(
        model=str(model_directory("llama")),
        datasets=[str(data)],
        output_dir=str(tmp_path),
        run_name="run",
        num_epochs=200,
        global_batch_size=4,
        learning_rate=1e-2,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.final)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(run.final, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for index in range(4):
        asked, answered = conversation(index)["messages"]
        prompt = tokenizer.apply_chat_template(
            [asked], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        ids = model.generate(**prompt, max_new_tokens=60, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(ids) == answered["content"] + "<|im_end|>"


def test_lora_leaves_the_base_alone_trains_new_tokens_and_its_adapter_equals_the_merged_model(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    base_directory = model_directory("llama")
    result = train(
        recipe(base_directory, data_file, tmp_path, adapter="lora", learning_rate=1e-2, num_epochs=3)
    )
    merged = transformers.AutoModelForCausalLM.from_pretrained(result.final).eval()
    base = transformers.AutoModelForCausalLM.from_pretrained(base_directory).eval()
    known = base.get_input_embeddings().weight.shape[0]
    assert torch.equal(merged.get_input_embeddings().weight[:known], base.get_input_embeddings().weight)
    norm = "model.norm.weight"
    assert torch.equal(merged.state_dict()[norm], base.state_dict()[norm])

    base.resize_token_embeddings(known + 2, mean_resizing=False)
    tuned = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    ids = torch.tensor([[known, 5, 9, known + 1, 7, 30]])
    torch.testing.assert_close(tuned(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
    rows = merged.get_input_embeddings().weight[known:]
    assert not torch.allclose(rows[0], rows[1], atol=1e-4)  # both began at the same mean


def interrupting(step: int) -> Callable[[Event], None]:
    def show(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return show


@pytest.mark.parametrize(
    "more", [{}, {"adapter": "lora", "lora_dropout": 0.2}, {"dtype": "bfloat16"}], ids=str
)
def test_an_interrupted_run_goes_on_to_the_very_weights_of_one_that_was_not(
    more: dict[str, Any], model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    common = {"num_epochs": 2, "val_set_size": 8, **more}
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a", **common))
    stopped = train(
        recipe(model_directory("llama"), data_file, tmp_path / "b", **common), show=interrupting(3)
    )
    assert (stopped.stopped_by, stopped.steps) == ("interrupted", 3)
    assert not stopped.final.exists()
    resumed = resume(stopped.run)
    assert resumed.stopped_by == "finished"
    own = {"run": 0, "final": 0, "reckoning": 0}  # where it lies, and what this machine took for it
    assert resumed.as_dict() | own == straight.as_dict() | own
    for name, weight in final_weights(straight.run).items():
        assert torch.equal(weight, final_weights(resumed.run)[name]), name

    def numbers(run: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("seconds", "memory_bytes")} for line in lines]

    assert numbers(straight.run) == numbers(resumed.run)


def test_a_loss_that_is_not_a_number_stops_the_run_names_its_rows_and_moves_nothing(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(Diverged) as caught:
        train(recipe(model_directory("llama"), data_file, tmp_path, learning_rate=1e30, max_grad_norm=None))
    assert caught.value.exit_code == 5
    assert "step 2" in caught.value.saw and "train.jsonl:" in caught.value.saw
    assert all(isinstance(loss, float) and loss > 0 for loss in losses(tmp_path / "run"))


def test_early_stopping_keeps_the_best_weights(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    result = train(
        recipe(
            model_directory("llama"),
            data_file,
            tmp_path,
            val_set_size=8,
            num_epochs=60,
            learning_rate=3e-2,
            eval_steps=4,
            early_stopping_patience=2,
        )
    )
    assert result.stopped_by == "early_stopping"
    assert result.best_eval_loss is not None and result.eval_loss is not None
    assert result.best_eval_loss < result.eval_loss
    again = train(
        recipe(result.final, data_file, tmp_path / "again", val_set_size=8, num_epochs=None, max_steps=1)
    )
    first = json.loads((again.run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["kind"] == "eval"
    assert first["loss"] == pytest.approx(result.best_eval_loss, rel=1e-5)


def test_every_row_read_is_used_or_dropped_with_its_place_and_reason(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    rows = [conversation(index) for index in range(10)]
    long = {
        "messages": [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": "on and " * 400}]
    }
    data = write_jsonl(tmp_path / "mixed.jsonl", [*rows, rows[0], long])
    with data.open("a") as file:
        file.write('{"messages": \n')
    result = train(recipe(model_directory("llama"), data, tmp_path, on_bad_row="drop", max_length=256))
    assert result.rows["read"] == 13
    assert result.rows["used"] == 10
    assert result.rows["used"] + sum(result.rows["dropped"].values()) == result.rows["read"]
    entries = [json.loads(line) for line in (result.run / "ledger.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in entries] == [11, 12, 13]
    assert entries[1]["graded_tokens_lost"] > 256


def test_a_bad_row_stops_the_run_by_default_with_its_line(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    data = write_jsonl(
        tmp_path / "bad.jsonl", [conversation(0), {"messages": [{"role": "usr", "content": "x"}]}]
    )
    with pytest.raises(DataError, match=r"bad\.jsonl:2"):
        train(recipe(model_directory("llama"), data, tmp_path))


def test_a_set_with_nothing_left_to_learn_does_not_start(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no row with a graded token"):
        train(recipe(model_directory("llama"), data_file, tmp_path, max_length=4))
    assert not (tmp_path / "run" / "final").exists()


def test_a_second_run_of_the_same_name_is_refused(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    train(recipe(model_directory("llama"), data_file, tmp_path, num_epochs=None, max_steps=1))
    with pytest.raises(UsageError, match="already holds a run"):
        train(recipe(model_directory("llama"), data_file, tmp_path))


def test_no_row_is_both_trained_on_and_held_out(model_directory: ModelDirectory, tmp_path: Path) -> None:
    rows = [conversation(index % 30) for index in range(60)]
    data = write_jsonl(tmp_path / "doubled.jsonl", rows)
    session = prepare(recipe(model_directory("llama"), data, tmp_path, val_set_size=0.2).recipe)
    trained = {tuple(view.input_ids) for views in session.data.train for view in views}
    held_out = {tuple(view.input_ids) for views in session.data.held_out for view in views}
    assert (len(trained), len(held_out)) == (24, 6)
    assert not trained & held_out


def test_sample_prompts_are_answered_at_the_start_at_each_evaluation_and_at_the_end(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    result = train(
        recipe(
            model_directory("llama"), data_file, tmp_path, sample_prompts=["What of the sun?"], eval_steps=2
        )
    )
    samples = [json.loads(line) for line in (result.run / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0, 2, 4, 5]
    assert all(sample["prompt"] == "What of the sun?" for sample in samples)


def test_a_resumed_run_is_the_same_run_unless_the_user_says_otherwise(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    stopped = train(recipe(model_directory("llama"), data_file, tmp_path), show=interrupting(2))
    with pytest.raises(UsageError, match="learning_rate"):
        resume(stopped.run, ["learning_rate=1e-5"])
    rows = data_file.read_text()
    data_file.write_text(rows + json.dumps(conversation(99)) + "\n")
    with pytest.raises(UsageError, match="training data"):
        resume(stopped.run)
    data_file.write_text(rows)
    finished = resume(stopped.run, ["learning_rate=1e-5"], allow_change=["learning_rate"])
    assert finished.stopped_by == "finished"
    rates = [
        json.loads(line)["learning_rate"] for line in (stopped.run / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(rates[2:]) <= 1e-5 < max(rates[:2])


def test_a_finished_run_stays_finished(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    done = train(recipe(model_directory("llama"), data_file, tmp_path))
    again = resume(done.run)
    assert again.steps == done.steps
    assert losses(again.run) == losses(done.run)


def test_a_run_killed_before_its_first_checkpoint_starts_again_from_the_beginning(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    straight = train(recipe(model_directory("llama"), data_file, tmp_path / "a"))

    def kill(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(model_directory("llama"), data_file, tmp_path / "b"), show=kill)
    (tmp_path / "b" / "run" / "plan.json").unlink()
    again = resume(tmp_path / "b" / "run")
    assert losses(again.run) == losses(straight.run)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_checkpointing_computes_each_layer_again_in_the_backward_pass_after_an_evaluation_too(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, adapter: str
) -> None:
    keys = {"adapter": adapter, "global_batch_size": 2, "val_set_size": 4}
    calls = []
    for checkpointed in (True, False):
        session = prepare(
            recipe(
                model_directory("llama"), data_file, tmp_path, gradient_checkpointing=checkpointed, **keys
            ).recipe
        )
        session.forward.flat = False
        take_step(session)
        evaluate(session)
        found: list[int] = []
        layer = session.forward.inner.model.layers[0].post_attention_layernorm
        layer.register_forward_hook(lambda *_, found=found: found.append(1))
        take_step(session)
        calls.append(len(found))
    assert calls[0] == 2 * calls[1] > 0


def test_a_run_says_that_it_goes_without_the_cpu_kernels(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_off", ["a test"])
    said: list[Event] = []
    for dtype in ("bfloat16", "float32"):
        asked = recipe(model_directory("llama"), data_file, tmp_path, dtype=dtype, run_name=dtype)
        train(asked, show=said.append)
    in_bf16, in_fp32 = (event for event in said if isinstance(event, Ready))
    note = "the CPU kernels are not used, a step takes longer: a test"
    assert note in in_bf16.notes
    assert note not in in_fp32.notes
    assert json.loads((tmp_path / "bfloat16" / "environment.json").read_text())["kernels"] == "a test"
