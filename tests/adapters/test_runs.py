"""Methods through whole runs: resumed bit for bit, asked from their run directory, told what was trained."""

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

from burnish.checkpoint.files import list_checkpoints, load_checkpoint
from burnish.errors import UsageError
from burnish.models.assistant import load_assistant
from burnish.recipe.load import load_recipe
from burnish.training.events import Audited, Event, Ready, Stepped
from burnish.training.run import RunResult, prepare, resume, train

ModelDirectory = Callable[[str], Path]


def settings(model: Path | str, data: Path, out: Path, **keys: Any) -> Any:
    given = {
        "model": str(model),
        "datasets": str(data),
        "output_dir": str(out),
        "run_name": "run",
        "dtype": "float32",
        "global_batch_size": 8,
        "learning_rate": 1e-2,
        "num_epochs": 1,
        "lora_r": 4,
        "bottleneck_size": 8,
    }
    return load_recipe(None, {**given, **keys})


def written(run: Path) -> dict[str, torch.Tensor]:
    """All that a run's final and adapter directories hold, by file and name."""
    files = [*(run / "final").glob("*.safetensors"), *(run / "adapter").glob("*.safetensors")]
    return {f"{file.name}/{name}": value for file in files for name, value in load_file(file).items()}


@pytest.mark.parametrize(
    "more",
    [
        {"adapter": "lora_xs"},
        {"adapter": "lora_xs", "dtype": "bfloat16", "lora_dropout": 0.1},
        {"adapter": "bottleneck", "dtype": "bfloat16"},
        {"adapter": "dora", "gradient_checkpointing": True},
        {"adapter": "pissa", "lora_plus_ratio": 4},
    ],
    ids=str,
)
def test_an_interrupted_run_of_any_method_goes_on_to_the_same_bits(
    more: dict[str, Any], model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    straight = train(settings(model_directory("llama"), data_file, tmp_path / "a", **more))
    stopped = train(settings(model_directory("llama"), data_file, tmp_path / "b", **more), show=interrupt)
    assert (stopped.stopped_by, stopped.steps) == ("interrupted", 2)
    resumed = resume(stopped.run)
    assert (resumed.stopped_by, resumed.train_loss) == ("finished", straight.train_loss)
    one, other = written(straight.run), written(resumed.run)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_checkpoint_of_lora_xs_holds_the_factors_and_a_resumed_run_uses_them(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    done = train(settings(model_directory("llama"), data_file, tmp_path, adapter="lora_xs"))
    weights = load_checkpoint(list_checkpoints(done.run / "checkpoints")[-1]).weights
    assert sum(name.endswith(".frozen") for name in weights) == sum(".core" in name for name in weights) == 14


@pytest.mark.parametrize("adapter", ["dora", "pissa", "lora_xs", "bottleneck"])
def test_the_run_directory_answers_as_the_adapter_on_the_base_does(
    adapter: str, model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    base = model_directory("qwen2")
    done = train(settings(base, data_file, tmp_path, adapter=adapter), show=events.append)
    tuned = load_assistant(str(done.run), dtype=torch.float32)
    beside = load_assistant(str(base), adapter=str(done.run / "adapter"), dtype=torch.float32)
    ids = torch.tensor([[384, 5, 9, 385, 7, 30]])
    with torch.no_grad():
        one, other = tuned.model(ids).logits, beside.model(ids).logits
        plain = transformers.AutoModelForCausalLM.from_pretrained(done.final, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert torch.equal(one, plain) == (adapter != "bottleneck")
    _the_run_says_what_was_trained(events, done)


def _the_run_says_what_was_trained(events: list[Event], done: RunResult) -> None:
    (ready,) = [event for event in events if isinstance(event, Ready)]
    (audited,) = [event for event in events if isinstance(event, Audited)]
    plan = json.loads((done.run / "plan.json").read_text())
    assert "2 x o_proj" in ready.adapted and audited.step == 1
    assert plan["trainable_parameters"] == ready.trainable
    assert plan["trainable_share"] == pytest.approx(ready.trainable / ready.parameters)
    assert "model.layers.0.self_attn.o_proj" in plan["adapter_modules"]
    kinds = [json.loads(line)["event"] for line in (done.run / "events.jsonl").read_text().splitlines()]
    assert kinds.count("audited") == 1


def test_a_bottleneck_that_is_not_the_base_s_is_refused(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    from burnish.errors import DataError

    done = train(settings(model_directory("llama"), data_file, tmp_path, adapter="bottleneck"))
    file = done.run / "adapter" / "bottleneck.json"
    file.write_text(file.read_text().replace("layers.1.self_attn", "layers.1.self_attention"))
    with pytest.raises(DataError, match=r"bottleneck\.json"):
        load_assistant(str(model_directory("llama")), adapter=str(file.parent))


def test_an_adapter_on_nothing_is_refused_before_the_first_step(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="'nope' matches no layer"):
        train(
            settings(
                model_directory("llama"), data_file, tmp_path, adapter="lora", lora_target_modules=["nope"]
            )
        )


@pytest.fixture
def llama3_base(model_directory: ModelDirectory, tmp_path: Path) -> Path:
    """A base with ChatML tokens and template whose rows are as Llama 3's reserved ones: all but zero."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_directory("qwen2"))
    model = transformers.AutoModelForCausalLM.from_pretrained(model_directory("qwen2"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[-2:] *= 1e-6
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("adapter", ["lora", "bottleneck"])
def test_control_tokens_that_the_base_never_trained_are_found_named_and_trained(
    adapter: str, llama3_base: Path, data_file: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    done = train(settings(llama3_base, data_file, tmp_path, adapter=adapter), show=events.append)
    assert json.loads((done.run / "plan.json").read_text())["untrained_token_ids"] == [384, 385]
    (ready,) = [event for event in events if isinstance(event, Ready)]
    assert any("<|im_start|>, <|im_end|>" in note for note in ready.notes)
    tuned = transformers.AutoModelForCausalLM.from_pretrained(done.final)
    base = transformers.AutoModelForCausalLM.from_pretrained(llama3_base)
    table, before = tuned.get_input_embeddings().weight, base.get_input_embeddings().weight
    assert torch.equal(table[:384], before[:384])
    assert table[384:].norm(dim=1).min() > 0.1 * before[:384].norm(dim=1).median()
    if adapter == "lora":
        again = PeftModel.from_pretrained(base, done.run / "adapter")
        ids = torch.tensor([[384, 5, 9, 385, 7, 30]])
        torch.testing.assert_close(again(ids).logits, tuned(ids).logits, rtol=0, atol=1e-4)


def test_a_base_whose_control_tokens_were_trained_is_left_as_it_is(
    llama3_base: Path, data_file: Path, tmp_path: Path
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(llama3_base)
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[-2:] *= 1e6
    model.save_pretrained(llama3_base)
    session = prepare(settings(llama3_base, data_file, tmp_path, adapter="lora").recipe)
    assert session.untrained == () and session.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora", "dora", "rslora", "pissa", "lora_xs", "bottleneck"])
def test_each_method_trains_marble(adapter: str, data_file: Path, tmp_path: Path) -> None:
    done = train(
        settings("marble", data_file, tmp_path, adapter=adapter, val_set_size=8, num_epochs=4, lora_r=16)
    )
    lines = [json.loads(line) for line in (done.run / "metrics.jsonl").read_text().splitlines()]
    first = next(line["loss"] for line in lines if line["kind"] == "eval")
    assert done.eval_loss is not None and done.eval_loss < 0.8 * first
    if adapter in ("full", "bottleneck"):
        return
    base = load_assistant("marble", adapter=str(done.run / "adapter"), dtype=torch.float32)
    tuned = load_assistant(str(done.run), dtype=torch.float32)
    ids = torch.tensor([[5, 9, 33, 7, 30, 21]])
    with torch.no_grad():
        torch.testing.assert_close(base.model(ids).logits, tuned.model(ids).logits, rtol=0, atol=1e-4)
