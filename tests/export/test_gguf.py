"""A GGUF file holds the merged model, tensor by tensor, and says what training said of tokens, template and stops."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

pytest.importorskip("gguf")

from gguf import GGMLQuantizationType as Kind
from gguf import dequantize, quantize

from burnish.errors import DataError, UsageError
from burnish.export import cold, cold_gguf, export, gguf_file
from burnish.export.cold_gguf import allowed, excess, rows_back
from burnish.export.export import Order
from burnish.export.forms import Form, Quantization
from burnish.export.gguf_file import FAMILIES, Chat, arranged, rope_factors, write_gguf
from burnish.export.gguf_vocabulary import LLAMA3_SPLIT, QWEN2_SPLIT, splitter_name
from tests.export.conftest import TrainedRun

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
CONFIGS: dict[str, Callable[..., Any]] = {
    "llama tied": lambda **ids: transformers.LlamaConfig(**SIZES, **ids, tie_word_embeddings=True),
    "llama with biases": lambda **ids: transformers.LlamaConfig(**SIZES, **ids, attention_bias=True),
    "llama 3.1": lambda **ids: transformers.LlamaConfig(**SIZES, **ids, rope_parameters=LLAMA3_ROPE),
    "qwen2": lambda **ids: transformers.Qwen2Config(**SIZES, **ids),
    "qwen3 with wide heads": lambda **ids: transformers.Qwen3Config(**SIZES, **ids, head_dim=32),
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


class Merged:
    """A merged model as the hf export leaves it, with a probe of it."""

    def __init__(self, config: Any, tokenizer: Any, place: Path) -> None:
        self.folder, self.scratch = place / "merged", place
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):  # zeros and ones would hide a swap
                torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
        model.save_pretrained(self.folder)
        tokenizer.save_pretrained(self.folder)
        prompt = {"prompt_ids": [5, 9, 40, 41, 7, 300, 2], "answer_ids": [11, 12, 13]}
        logits = cold.answer_logits(model, prompt)
        from safetensors.torch import save_file

        save_file({"logits.0": logits.contiguous()}, place / "probe.safetensors")
        self.chat = Chat(TEMPLATE, [0, 385], 0, None, False)
        self.told = {
            "template": TEMPLATE,
            "stop_ids": [0, 385],
            "rows": config.vocab_size,
            "probes": [prompt],
            "quantization": "f16",
        }

    def gguf(self, quantization: Quantization = Quantization.F16, **chat: Any) -> list[dict[str, Any]]:
        """Write the file, and examine it."""
        import dataclasses

        path = self.scratch / "out" / "model.gguf"
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        write_gguf(self.folder, path, quantization, dataclasses.replace(self.chat, **chat), name="tiny")
        probe = self.scratch / "probe.json"
        probe.write_text(json.dumps({**self.told, "quantization": quantization.value}))
        return cold_gguf.examine(path, self.folder, probe)


@pytest.fixture(scope="module")
def merged(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Merged]:
    made: dict[str, Merged] = {}
    chatty = transformers.PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        eos_token="<|endoftext|>",
    )
    chatty.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    chatty.add_tokens(["<think>"])

    def make(kind: str = "llama tied") -> Merged:
        if kind not in made:
            ids = {"vocab_size": 416, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
            made[kind] = Merged(CONFIGS[kind](**ids), chatty, tmp_path_factory.mktemp("merged"))
        return made[kind]

    return make


def failures(checks: list[dict[str, Any]]) -> list[str]:
    return [check["check"] for check in checks if not check["ok"]]


@pytest.mark.parametrize(
    ("kind", "quantization"),
    [("llama tied", quantization) for quantization in Quantization]
    + [(kind, "q8_0") for kind in list(CONFIGS)[1:]],
)
def test_every_family_and_format_comes_back_within_its_bound(
    merged: Callable[[str], Merged], kind: str, quantization: str
) -> None:
    checks = {check["check"]: check for check in merged(kind).gguf(Quantization(quantization))}
    assert failures(list(checks.values())) == []
    assert checks["gguf_tensors"]["saw"]["largest_share_of_bound"] > (0.0 if quantization == "f16" else 0.9)
    assert checks["gguf_tokens"]["saw"][0] == 416


def test_rows_left_as_transformers_has_them_are_seen_twice(
    merged: Callable[[str], Merged], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "arranged", lambda weight, *given: weight)
    assert failures(merged("llama tied").gguf()) == ["gguf_tensors", "gguf_logits"]


@pytest.mark.parametrize(
    ("chat", "seen_by"),
    [
        ({"template": TEMPLATE + " "}, "gguf_template"),
        ({"stop_ids": [0]}, "gguf_stop_ids"),
        ({"bos_id": 0, "begins_with_bos": True}, "gguf_bos"),
    ],
)
def test_metadata_that_differs_from_training_is_seen(
    merged: Callable[[str], Merged], chat: dict[str, Any], seen_by: str
) -> None:
    assert failures(merged("llama tied").gguf(**chat)) == [seen_by]


def test_a_merge_out_of_order_and_a_wrong_splitter_are_seen(
    merged: Callable[[str], Merged], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = gguf_file.read_vocabulary

    def spoil(directory: Path, rows: int) -> Any:
        import dataclasses

        right = read(directory, rows)
        return dataclasses.replace(right, pre="qwen2", merges=[*right.merges[1:], right.merges[0]])

    monkeypatch.setattr(gguf_file, "read_vocabulary", spoil)
    assert failures(merged("llama tied").gguf()) == ["gguf_merges", "gguf_splitter"]


def test_a_size_that_is_not_the_models_is_seen(
    merged: Callable[[str], Merged], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "head_width", lambda config: 8)
    assert failures(merged("qwen2").gguf()) == ["gguf_sizes"]


def test_four_stop_ids_do_not_fit_and_are_refused(merged: Callable[[str], Merged]) -> None:
    with pytest.raises(DataError, match="stops at 4 tokens"):
        merged("llama tied").gguf(stop_ids=[0, 384, 385, 386])


def test_turning_the_rows_of_a_head_about_and_back_changes_nothing() -> None:
    config = {"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 1}
    weight = np.arange(12 * 3, dtype=np.float32).reshape(12, 3)
    turned = arranged(weight, "model.layers.0.self_attn.q_proj.weight", FAMILIES["llama"], config)
    assert turned[:, 0].astype(int).tolist() == [3 * k for k in (0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11)]
    assert (rows_back(turned, "model.layers.0.self_attn.q_proj.weight", config) == weight).all()


def test_rope_factors_are_those_that_transformers_divides_by() -> None:
    config = transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    factors = rope_factors(config.to_dict())
    assert factors is not None
    plain = [1 / 500000.0 ** (k / 16) for k in range(0, 16, 2)]
    assert np.allclose(np.array(plain) / factors, scaled.numpy(), rtol=1e-6)
    assert math.isclose(factors[0], 1.0) and math.isclose(factors[-1], 8.0)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0, Kind.Q4_0])
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1.0, 100.0])
def test_the_bound_holds_for_what_the_package_writes_and_for_little_more(kind: Kind, scale: float) -> None:
    weight = (np.random.default_rng(0).standard_normal((64, 64)) * scale).astype(np.float32)
    found = dequantize(quantize(weight, kind), kind)
    assert excess(found, weight, kind) <= 1.0
    moved = found.copy()
    moved[3, 5] += 2.1 * allowed(weight, kind)[3, 5]
    assert excess(moved, weight, kind) > 1.0


def split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ],
    }


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]}


@pytest.mark.parametrize(
    ("name", "pre_tokenizer", "normalizer", "ignore_merges"),
    [
        ("gpt-2", BYTES, None, False),
        ("smollm", DIGITS, None, False),
        ("llama-bpe", split(LLAMA3_SPLIT), None, True),
        ("qwen2", split(QWEN2_SPLIT), {"type": "NFC"}, False),
        (None, split(LLAMA3_SPLIT), None, False),
        (None, split(QWEN2_SPLIT), {"type": "NFKC"}, False),
        (None, {**BYTES, "add_prefix_space": True}, None, False),
        (None, {"type": "Metaspace"}, None, False),
        (None, split(r"\w+"), None, False),
    ],
)
def test_a_splitter_has_llama_cpps_name_or_is_refused(
    name: str | None, pre_tokenizer: Any, normalizer: Any, ignore_merges: bool
) -> None:
    model = {"type": "BPE", "ignore_merges": ignore_merges, "vocab": {}, "merges": []}
    spelled = {"model": model, "pre_tokenizer": pre_tokenizer, "normalizer": normalizer}
    if name is None:
        with pytest.raises(DataError, match=r"convert_hf_to_gguf\.py"):
            splitter_name(spelled)
    else:
        assert splitter_name(spelled) == name


def test_a_run_becomes_a_gguf_file_with_all_that_chat_needs(
    trained_run: TrainedRun, tmp_path: Path, quick: None
) -> None:
    result = export.export(Order(trained_run(adapter="lora"), Form.OLLAMA, tmp_path / "out"))
    assert failures(result.checks) == []
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model-f16.gguf", "Modelfile", "README.md", "chat.json", "chat_template.jinja"} <= names
    assert "model.safetensors" not in names
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./model-f16.gguf"
    assert lines[-2:] == ['PARAMETER stop "<|endoftext|>"', 'PARAMETER stop "<|im_end|>"']


def test_a_family_without_gguf_gets_llama_cpps_own_command(trained_run: TrainedRun, tmp_path: Path) -> None:
    order = Order(trained_run("gpt_neox"), Form.GGUF, tmp_path / "out", quantization=Quantization.Q4_0)
    with pytest.raises(UsageError) as refused:
        export.export(order)
    assert f"convert_hf_to_gguf.py {tmp_path}/out-hf --outtype f16" in refused.value.remedy
    assert "llama-quantize" in refused.value.remedy
    assert not list(tmp_path.iterdir())
