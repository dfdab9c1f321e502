"""A run small enough to be killed two hundred times: a random Llama of two layers, marble's tokenizer, forty rows."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from burnish import marble
from burnish.recipe.load import LoadedRecipe, load_recipe

ROWS = 40
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def make_model(place: Path) -> Path:
    """A directory with a model of random weights, the same each time."""
    place.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copy(marble.DIRECTORY / name, place / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(place)
    return place


def make_rows(path: Path, *, first: int = 0, count: int = ROWS) -> Path:
    """Conversations of different lengths, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for index in range(first, first + count):
            answer = f"Number {index} follows {index - 1}" + ", and so on" * (index % 4) + "."
            messages = [
                {"role": "user", "content": f"What of {index}?"},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def make_recipe(place: Path, name: str, model: Path, rows: list[Path], **keys: Any) -> LoadedRecipe:
    """A recipe of a few updates that saves and evaluates often."""
    said = {
        "model": str(model),
        "datasets": [{"path": str(path)} for path in rows],
        "val_set_size": 6,
        "dtype": "float32",
        "global_batch_size": 8,
        "learning_rate": 3e-3,
        "num_epochs": 3,
        "save_steps": 2,
        "eval_steps": 3,
        "max_length": 128,
        "output_dir": str(place),
        "run_name": name,
        **keys,
    }
    return load_recipe(None, said)


def in_a_child(job: Callable[[], object], log: Path, **environment: str) -> int:
    """Start `job` in a fork of this process and return its number; what it prints goes to `log`."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for(child: int, *, seconds: float) -> int | None:
    """The exit code of a child, minus the signal that ended it; None while it lives after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)
