"""QLoRA from recipe to finished model: exact, resumable, and honest about what merging changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from burnish.errors import UsageError
from burnish.models import quantized
from burnish.models.load import add_token_rows
from burnish.models.quantized import load_quantized, quantized_layers
from burnish.recipe.load import load_recipe
from burnish.training.events import Event, Saved
from burnish.training.merge import drift_of, probe_logits, probe_rows
from burnish.training.oracle import consult
from burnish.training.run import prepare, resume, train
from burnish.training.step import evaluate, take_step
from tests.chat.families import SHARED

ModelDirectory = Callable[[str], Path]

ALPACA = SHARED / "alpaca" / "alpaca_gpt4_en_1k.jsonl"


def recipe(model: Path | str, data: Path, out: Path, **keys: Any) -> Any:
    settings = {
        "model": str(model),
        "datasets": str(data),
        "output_dir": str(out),
        "run_name": "run",
        "adapter": "qlora",
        "global_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 6,
        **keys,
    }
    return load_recipe(None, {key: value for key, value in settings.items() if value is not None})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ["qlora", "qdora"])
def test_the_oracle_agrees_about_a_base_in_4_bits_and_training_never_moves_or_copies_it(
    adapter: str, dtype: str, model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    session = prepare(
        recipe(model_directory("wide"), data_file, tmp_path, adapter=adapter, dtype=dtype).recipe
    )
    base = [layer.weight.data.clone() for layer in quantized_layers(session.model)]
    computed = {layer.compute_dtype for layer in quantized_layers(session.model)}
    verdict = consult(session)
    assert verdict.ok, verdict
    assert dtype == "bfloat16" or verdict.loss < 1e-6
    losses = [take_step(session).loss for _ in range(6)]
    assert losses[-1] < losses[0]
    assert {
        layer.compute_dtype for layer in quantized_layers(session.model)
    } == computed  # the oracle's copy is one
    pairs = zip(quantized_layers(session.model), base, strict=True)
    assert all(torch.equal(layer.weight.data, before) for layer, before in pairs)
    assert all("base_layer" not in name for name in session.masters.parameters)
    assert session.trainable.of > session.trainable.parameters
    if dtype == "bfloat16":
        assert {p.dtype for p in quantized.exact_parameters(session.model)} == {torch.float32}


def test_as_many_parameters_are_trained_beside_4_bits_as_beside_16(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    over = {
        adapter: prepare(
            recipe(model_directory("wide"), data_file, tmp_path, adapter=adapter).recipe
        ).trainable
        for adapter in ("lora", "qlora", "dora", "qdora")
    }
    assert over["qlora"] == over["lora"] and over["qdora"] == over["dora"]


def test_a_wrong_base_in_4_bits_is_what_the_oracle_would_find(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The truth is computed with the very weights that are trained on: other ones are noticed."""
    session = prepare(recipe(model_directory("wide"), data_file, tmp_path, dtype="bfloat16").recipe)
    layer = next(iter(quantized_layers(session.model)))
    fast = session.forward.loss

    def with_another_base(pack: Any, **given: Any) -> Any:
        layer.weight.data.bitwise_xor_(0x88)
        try:
            return fast(pack, **given)
        finally:
            layer.weight.data.bitwise_xor_(0x88)

    monkeypatch.setattr(
        type(session.forward), "loss", lambda self, pack, **given: with_another_base(pack, **given)
    )
    assert not consult(session).ok


def test_a_killed_run_goes_on_bit_for_bit_with_8_bit_moments_and_evaluations_between(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    keys = {
        "optimizer": "adamw_8bit",
        "save_steps": 3,
        "eval_steps": 2,
        "val_set_size": 4,
        "lora_dropout": 0.1,
    }
    keys |= {"lora_r": 128}  # its matrices have more than 4,096 numbers, from where moments are in 8 bits
    train(recipe(model_directory("wide"), data_file, tmp_path / "a", **keys))

    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, Saved) and event.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(recipe(model_directory("wide"), data_file, tmp_path / "b", **keys), show=kill)
    resume(tmp_path / "b" / "run")
    one, two = (load_file(tmp_path / name / "run" / "final" / "model.safetensors") for name in "ab")
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    state = load_file(tmp_path / "b" / "run" / "checkpoints" / "step-00000006" / "optimizer.safetensors")
    assert any(value.dtype == torch.uint8 for value in state.values())


def test_the_final_model_is_the_original_base_with_the_adapter_and_its_drift_is_written_down(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    result = train(recipe(model_directory("wide"), data_file, tmp_path, dtype="float32"))
    final, info = transformers.AutoModelForCausalLM.from_pretrained(result.final, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not hasattr(final.config, "quantization_config")
    base = transformers.AutoModelForCausalLM.from_pretrained(model_directory("wide"))
    add_token_rows(base, final.get_input_embeddings().weight.shape[0], [])
    tuned = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    ids = torch.tensor([[5, 9, 30, 7, 11]])
    torch.testing.assert_close(final.eval()(ids).logits, tuned(ids).logits, rtol=1e-4, atol=1e-4)
    (drift,) = json.loads((tmp_path / "run" / "merge.json").read_text())
    assert result.merge == [drift] and drift["into"] == "the original base in float32"
    assert 0 < drift["mean_logit_difference"] < drift["max_logit_difference"]
    assert 0 < drift["mean_kl"] <= drift["max_kl"] < 1 and drift["positions"] > 20
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert 0 < plan["quantized"]["quantized"] < 0.5 * plan["quantized"]["in_bf16"]
    named = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(model_directory("wide"))


def test_the_drift_is_that_of_the_model_that_was_trained(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    """What merge.json says, worked out again from the adapter and a base quantised anew."""
    asked = recipe(model_directory("wide"), data_file, tmp_path, dtype="float32")
    result = train(asked)
    base = load_quantized(str(model_directory("wide")), compute=torch.float32, device=torch.device("cpu"))
    probes = probe_rows(prepare(asked.recipe))
    final = transformers.AutoModelForCausalLM.from_pretrained(result.final)
    add_token_rows(base, final.get_input_embeddings().weight.shape[0], [])
    trained = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    again = drift_of(probe_logits(trained, probes), probe_logits(final, probes), "")
    assert result.merge is not None
    assert again.mean_kl == pytest.approx(result.merge[0]["mean_kl"], rel=1e-3)
    assert again.max_logit_difference == pytest.approx(result.merge[0]["max_logit_difference"], rel=1e-3)


def test_on_demand_the_final_model_is_in_4_bits_and_stock_transformers_loads_it(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    result = train(recipe(model_directory("wide"), data_file, tmp_path, merge_into="4bit"))
    into_base, into_four = result.merge or []
    assert into_four["into"] == "4 bits" and into_four["mean_kl"] > 0 and into_base["mean_kl"] > 0
    final = transformers.AutoModelForCausalLM.from_pretrained(result.final).eval()
    assert len(list(quantized_layers(final))) == 2 * 7
    assert final(torch.tensor([[5, 9, 30]])).logits.isfinite().all()
    assert not (tmp_path / "run" / ".merged").exists()


def test_equal_logits_have_no_drift_and_others_the_divergence_one_computes_by_hand() -> None:
    one = [torch.tensor([[0.0, 1.0, 2.0]])]
    assert drift_of(one, one, "x").mean_kl == drift_of(one, one, "x").max_logit_difference == 0.0
    two = [torch.tensor([[0.0, 3.0, 2.0]])]
    p, q = one[0].softmax(-1), two[0].softmax(-1)
    found = drift_of(one, two, "x")
    assert found.mean_kl == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-6)
    assert (found.max_logit_difference, found.same_choice) == (2.0, 0.0)


def test_without_bitsandbytes_the_run_says_what_to_install(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(UsageError, match=r"burnish\[qlora\]"):
        prepare(recipe(model_directory("wide"), data_file, tmp_path).recipe)


@pytest.mark.slow
@pytest.mark.skipif(not ALPACA.exists(), reason="../shared is absent")
def test_marble_learns_instructions_over_4_bits_to_within_5_percent_of_loras_held_out_loss(
    tmp_path: Path,
) -> None:
    """The last evaluation, three seeds; on marble's own questions the loss nears zero (docs/weights.md)."""
    rows = ALPACA.read_text(encoding="utf-8").splitlines()[:600]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    keys = {"num_epochs": 1, "max_steps": None, "learning_rate": 4e-3, "val_set_size": 0.2, "max_length": 512}
    losses: dict[str, list[float]] = {"lora": [], "qlora": []}
    for adapter, found in losses.items():
        for seed in range(3):
            asked = recipe("marble", tmp_path / "rows.jsonl", tmp_path, adapter=adapter, seed=seed, **keys)
            session = prepare(asked.recipe)
            for _ in range(session.plan.num_steps):
                take_step(session)
            found.append(evaluate(session).loss)
    print(losses)
    assert sum(losses["qlora"]) <= 1.05 * sum(losses["lora"]), losses
