"""A model directory from elsewhere is read, or refused in three parts; nothing of it is run, and no weight made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from burnish.errors import DataError
from burnish.models.foreign import reading
from burnish.models.load import count_parameters, load_model
from burnish.models.locate import locate
from burnish.models.tokenizer import load_chat_tokenizer

CODE = "import pathlib; pathlib.Path(__file__).with_name('CANARY').write_text('run')\n"


@pytest.fixture
def directory(model_directory: Callable[[str], Path], tmp_path: Path) -> Path:
    place = tmp_path / "model"
    shutil.copytree(model_directory("llama"), place)
    (place / "evil.py").write_text(CODE)
    return place


def change(path: Path, **keys: Any) -> None:
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**said, **keys}))


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}),
        ("config.json", {"_attn_implementation": "someone/kernel"}),
        ("config.json", {"_attn_implementation_internal": "someone/kernel:evil"}),
        ("config.json", {"attn_implementation": {"text_config": "someone/kernel"}}),
        ("config.json", {"experts_implementation": "kernels-community:x"}),
        ("config.json", {"use_kernels": True}),
        ("config.json", {"model_file": "evil.py"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("generation_config.json", {"custom_generate": "evil.py"}),
    ],
    ids=str,
)
def test_what_brings_code_is_refused_before_anything_is_loaded(
    file: str, keys: dict[str, Any], directory: Path
) -> None:
    change(directory / file, **keys)
    with pytest.raises(DataError, match=file):
        locate(str(directory))
    assert not (directory / "CANARY").exists()


def test_transformers_own_implementations_are_no_code_from_elsewhere(directory: Path) -> None:
    change(
        directory / "config.json", _attn_implementation="flash_attention_2", attn_implementation={"a": "sdpa"}
    )
    assert locate(str(directory)) == directory


def test_a_weight_that_is_not_there_is_not_made_up(directory: Path) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    lost = next(name for name in weights if "down_proj" in name)
    save_file({name: weight for name, weight in weights.items() if name != lost}, path, {"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights are missing.*down_proj"):
        load_model(str(directory))


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        '{"model_type": "nobody"}',
        '{"model_type": "llama", "num_hidden_layers": "two"}',
        "[" * 100_000,
    ],
    ids=lambda said: said[:12],
)
def test_a_config_that_is_none_is_refused(said: str, directory: Path) -> None:
    (directory / "config.json").write_text(said)
    with pytest.raises(DataError) as caught:
        count_parameters(str(directory))
    assert caught.value.rule and caught.value.remedy


@pytest.mark.parametrize(
    "said", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0", "model": {"type": "BPE"}}'], ids=str
)
def test_a_tokenizer_that_is_none_is_refused(said: bytes, directory: Path) -> None:
    (directory / "tokenizer.json").write_bytes(said)
    with pytest.raises(DataError) as caught:
        load_chat_tokenizer(str(directory))
    assert caught.value.rule and caught.value.remedy


def test_a_tokenizer_that_gives_one_id_to_two_tokens_is_refused(directory: Path) -> None:
    path = directory / "tokenizer.json"
    said = json.loads(path.read_bytes())
    merged = [
        "".join(pair if isinstance(pair, list) else pair.split(" ")) for pair in said["model"]["merges"]
    ]
    said["model"]["vocab"][merged[0]] = said["model"]["vocab"][merged[1]]
    path.write_text(json.dumps(said))
    with pytest.raises(DataError, match="out of vocabulary") as caught:
        load_chat_tokenizer(str(directory))
    assert "each named once" in caught.value.rule


@pytest.mark.parametrize("damage", ["empty", "header", "pickle"])
def test_weights_that_are_none_are_refused(damage: str, directory: Path) -> None:
    path = directory / "model.safetensors"
    content = {"empty": b"", "header": b"\xff" * 64 + path.read_bytes()[64:], "pickle": b"\x80\x04N."}[damage]
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_model(str(directory))
    assert caught.value.rule and caught.value.remedy


def test_a_rust_panic_is_the_file_s_fault_and_a_lack_of_memory_is_not() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(DataError, match="x: boom"), reading("x", rule="r", remedy="m"):
        raise panic("boom")
    with pytest.raises(torch.OutOfMemoryError), reading("x", rule="r", remedy="m"):
        raise torch.OutOfMemoryError("full")
    with pytest.raises(KeyboardInterrupt), reading("x", rule="r", remedy="m"):
        raise KeyboardInterrupt
