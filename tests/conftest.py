"""Small models and data sets made on the spot: real architectures, random weights, a tokenizer trained in the test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One worker of several has one core: torch's threads of all of them would wait for each other, spinning.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SUBJECTS = [
    "sun",
    "moon",
    "sea",
    "wind",
    "road",
    "house",
    "river",
    "stone",
    "bread",
    "lamp",
    "field",
    "storm",
]
QUALITIES = ["bright", "old", "cold", "small", "long", "warm", "deep", "grey"]


def conversation(index: int) -> dict[str, Any]:
    subject, quality = SUBJECTS[index % len(SUBJECTS)], QUALITIES[index % len(QUALITIES)]
    answer = f"The {subject} is {quality}" + " and so it stays" * (index % 4) + f", number {index}."
    return {
        "messages": [
            {"role": "user", "content": f"What of the {subject}, number {index}?"},
            {"role": "assistant", "content": answer},
        ]
    }


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Certificates of the tests are kept apart from the user's."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BURNISH_CACHE", str(place))
        yield place


@pytest.fixture(autouse=True)
def denormals_as_python_has_them() -> Iterator[None]:
    """A run flushes denormal floats for its whole process; hypothesis, in the next test, needs them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of 384 tokens with one special token and no chat template: a base model's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [message["content"] for index in range(200) for message in conversation(index)["messages"]]
    backend.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {  # rows of whole blocks of 64 weights, as 4 bits need them
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
FAMILIES: dict[str, Callable[..., transformers.PreTrainedConfig]] = {
    "llama": lambda **ids: transformers.LlamaConfig(**GROUPED, **ids, tie_word_embeddings=True),
    "qwen2": lambda **ids: transformers.Qwen2Config(**GROUPED, **ids),
    "gemma2": lambda **ids: transformers.Gemma2Config(**GROUPED, **ids, head_dim=8, sliding_window=16),
    "gpt_neox": lambda **ids: transformers.GPTNeoXConfig(**SMALL, **ids),
    "wide": lambda **ids: transformers.LlamaConfig(**WIDE, **ids, tie_word_embeddings=True),
    "gpt2": lambda **ids: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, **ids),
}


@pytest.fixture(scope="session")
def model_directory(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: transformers.PreTrainedTokenizerFast
) -> Callable[[str], Path]:
    """A model directory of the named family, with random weights that do not change within the session."""
    made: dict[str, Path] = {}

    def make(family: str = "llama") -> Path:
        if family not in made:
            torch.manual_seed(0)
            end = tokenizer.eos_token_id
            config = FAMILIES[family](
                vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=end, pad_token_id=None
            )
            path = tmp_path_factory.mktemp(family)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[family] = path
        return made[family]

    return make


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """Forty short conversations."""
    return write_jsonl(tmp_path / "train.jsonl", [conversation(index) for index in range(40)])
