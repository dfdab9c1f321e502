"""What vLLM cannot load is known from the adapter's files, and what merging cannot give back is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from burnish.errors import DataError, UsageError
from burnish.export import export
from burnish.export.adapter_facts import AdapterFacts, read_adapter
from burnish.export.export import Order
from burnish.export.forms import Form
from burnish.export.inverse import unmerged, way_back
from burnish.export.source import open_source
from burnish.export.vllm import serve_command
from burnish.export.weights import load_trained
from burnish.recipe.choices import DType
from tests.export.conftest import ModelDirectory, Staged, TrainedRun

LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def facts(*tensors: str, **keys: Any) -> AdapterFacts:
    config = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 16,
        "bias": "none",
        "init_lora_weights": True,
        **keys,
    }
    return AdapterFacts(Path("adapter"), config, (LAYER, *tensors), ("F32",))


def test_linear_layers_alone_are_loaded_by_vllm() -> None:
    assert facts().vllm_obstacles() == []
    assert facts(use_rslora=True, init_lora_weights="gaussian").vllm_obstacles() == []


@pytest.mark.parametrize(
    ("keys", "tensors", "why"),
    [
        ({"use_dora": True}, (), "DoRA"),
        ({"trainable_token_indices": {"embed_tokens": [3]}}, (), "token rows"),
        ({"modules_to_save": ["lm_head"]}, (), "whole modules"),
        ({}, ("base_model.model.model.embed_tokens.weight",), "whole embedding"),
        ({}, ("base_model.model.lm_head.lora_A.weight",), "the head"),
        ({"bias": "lora_only"}, (), "biases"),
        ({"alpha_pattern": {"q_proj": 32}}, (), "differs by module"),
        ({"target_parameters": ["experts.gate_up_proj"]}, (), "experts"),
        ({"init_lora_weights": "pissa_niter_4"}, (), "changes the base"),
        ({"r": 513}, (), "above 512"),
        ({"peft_type": "IA3"}, (), "not LoRA"),
    ],
)
def test_an_adapter_that_vllm_cannot_load_has_the_reason(
    keys: dict[str, Any], tensors: tuple[str, ...], why: str
) -> None:
    assert any(why in reason for reason in facts(*tensors, **keys).vllm_obstacles())


@pytest.mark.parametrize(("rank", "flag"), [(1, 1), (4, 8), (8, 8), (17, 32), (300, 320), (512, 512)])
def test_the_rank_that_vllm_is_told_holds_the_adapter(rank: int, flag: int) -> None:
    assert facts(r=rank).vllm_rank == flag


@pytest.mark.parametrize("method", ["dora", "rslora", "pissa", "lora_xs"])
def test_every_method_that_merges_leaves_whole_and_as_an_adapter(
    trained_run: TrainedRun, tmp_path: Path, quick: None, method: str
) -> None:
    run = trained_run(adapter=method, learning_rate=1e-2)
    for form in (Form.HF, Form.ADAPTER):
        result = export.export(Order(run, form, tmp_path / form.value))
        assert {"keys", "logits", "greedy"} <= {check["check"] for check in result.checks}


def test_a_bottleneck_leaves_with_its_loader_and_in_no_other_form(
    trained_run: TrainedRun, tmp_path: Path, quick: None
) -> None:
    run, out = trained_run(adapter="bottleneck"), tmp_path / "out"
    export.export(Order(run, Form.ADAPTER, out))
    assert {"bottleneck.json", "bottleneck.safetensors", "load_bottleneck.py"} <= {
        path.name for path in out.iterdir()
    }
    imports = [
        line for line in (out / "load_bottleneck.py").read_text().splitlines() if "import" in line.split()
    ]
    assert imports and not any("burnish" in line for line in imports)
    for form in (Form.HF, Form.VLLM, Form.GGUF, Form.OLLAMA):
        with pytest.raises(UsageError, match="bottleneck"):
            export.export(Order(run, form, tmp_path / "other"))


def test_a_broken_weight_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x00" * 5)
    with pytest.raises(DataError, match="whole safetensors file"):
        read_adapter(tmp_path)


def test_vllm_is_given_the_merged_model_where_it_cannot_have_the_adapter(
    trained_run: TrainedRun, tmp_path: Path, quick: None
) -> None:
    result = export.export(Order(trained_run(adapter="lora"), Form.VLLM, tmp_path / "out"))
    assert result.command is not None
    assert result.command[:3] == ["vllm", "serve", str(tmp_path / "out")]
    assert any("token rows" in remark for remark in result.remarks)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert " ".join(result.command) in (tmp_path / "out" / "README.md").read_text()


def test_vllm_is_given_the_adapter_with_the_tokenizer_template_and_stops_of_training(
    trained_run: TrainedRun,
) -> None:
    source = open_source(trained_run(adapter="lora"))
    command = serve_command(source, facts(r=12), Path("/x/out"), dtype=torch.bfloat16)
    assert command[2] == source.base
    for flag, value in (
        ("--lora-modules", f"{source.name}=/x/out"),
        ("--max-lora-rank", "16"),
        ("--tokenizer", "/x/out"),
        ("--chat-template", "/x/out/chat_template.jinja"),
        ("--generation-config", "/x/out"),
    ):
        assert command[command.index(flag) + 1] == value


def test_unmerging_what_was_written_in_fp32_gives_the_bf16_base_back_bit_for_bit(
    trained_run: TrainedRun, model_directory: ModelDirectory, tmp_path: Path, quick: None
) -> None:
    base = shutil.copytree(model_directory("llama"), tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    run = trained_run(adapter="lora", model=str(base), learning_rate=4e-3)
    out = tmp_path / "out"
    export.export(Order(run, Form.HF, out, DType.FLOAT32))
    assert json.loads((out / "parity.json").read_text())["inverse"] == {
        "exists": True,
        "how": "subtract scale * B @ A from each merged weight in fp64, round to the base's dtype",
        "elements": 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64),
        "not_returned": 0,
    }
    model = load_trained(open_source(run))
    assert isinstance(model, PeftModel)
    written, before = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "lora_A"):
            weight, held = written[f"{name}.weight"], before[f"{name}.weight"]
            assert not torch.equal(weight.bfloat16(), held)
            assert torch.equal(
                unmerged(weight, layer.get_delta_weight("default").detach(), torch.bfloat16), held
            )


def test_rounding_that_loses_the_base_is_counted_and_said(
    trained_run: TrainedRun, tmp_path: Path, quick: None
) -> None:
    export.export(Order(trained_run(adapter="lora"), Form.HF, tmp_path / "out", DType.BFLOAT16))
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert not report["inverse"]["exists"]
    assert 0 < report["inverse"]["not_returned"] <= report["inverse"]["elements"]
    assert report["ok"]


def test_there_is_no_way_back_from_dora_and_full_tuning() -> None:
    assert not way_back(None)["exists"]
    assert not way_back(facts(use_dora=True))["exists"]
    assert way_back(facts())["exists"]


def test_an_adapter_keeps_every_check_of_the_run(staged: Any) -> None:
    made: Staged = staged(Form.ADAPTER)
    assert made.notes["inverse"]["exists"]
    config = json.loads((made.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == made.source.base
