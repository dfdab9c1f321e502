"""What a rank holds: sharded full tuning on 1, 2 and 4 ranks of this machine's CPU over gloo, beside the planner.

    python benchmarks/ranks.py                     a table, in MB, of the rank that holds most
    python benchmarks/ranks.py --small             the same of a model of nothing: what libraries take by themselves
    python benchmarks/ranks.py --ranks 1 2 --keys adapter=lora data_parallel=replicate

A rank is measured from the inside. `state` are the bytes of its own tensors after an update: weights, moments, and
gradients as they were before it. `loading` and `peak` are the most of the process's own memory (RssAnon, looked at
every 2 ms) above what it held when it had imported everything, which is `before`: until the model is open, and over
two updates. `planned` is what `burnish plan` expects of the same, with its reserve of a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

MEGA = 1e6
STEPS = 2
SHAPE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 12}
"""113M parameters in layers, 0.4M in the vocabulary: weights dominate."""
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_model(place: Path, shape: dict[str, int]) -> Path:
    """A Llama of random weights with a tokenizer of bytes."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE({**alphabet, "<|end|>": len(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **shape,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def make_rows(path: Path, count: int = 96) -> Path:
    """Questions and answers of uneven length."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} times {n}?"},
                {"role": "assistant", "content": f"It is {n * n}" + ", as everybody knows" * (n % 5) + "."},
            ]
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_recipe(folder: Path, shape: dict[str, int], **keys: Any) -> Path:
    """A recipe file over a new model and new rows."""
    settings = {
        "model": str(make_model(folder / "model", shape)),
        "datasets": str(make_rows(folder / "rows.jsonl")),
        "output_dir": str(folder / "runs"),
        "dtype": "float32",
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "learning_rate": 1e-3,
        **keys,
    }
    path = folder / "recipe.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
    return path


# Memory


def measure(
    folder: Path, shape: dict[str, int], sizes: list[int], keys: dict[str, Any]
) -> list[dict[str, Any]]:
    """One line for each number of ranks."""
    asked = {"data_parallel": "shard", "gradient_checkpointing": True, "max_steps": STEPS, **keys}
    recipe = make_recipe(folder, shape, **asked)
    table = []
    for size in sizes:
        port = free_port()
        members = []
        for rank in range(size):
            told = {**os.environ, **environment(rank, size, port)}
            command = [sys.executable, __file__, "--member", str(recipe)]
            members.append(subprocess.Popen(command, env=told, stdout=subprocess.PIPE))
        found = [json.loads(member.communicate()[0].splitlines()[-1]) for member in members]
        table.append({"ranks": size, **{key: max(one[key] for one in found) for key in found[0]}})
        print(table[-1], file=sys.stderr, flush=True)
    return table


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What a launcher says to a rank."""
    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_PORT": port,
    }
    return {**{key: str(value) for key, value in own.items()}, "MASTER_ADDR": "127.0.0.1"}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def member(recipe: Path) -> None:
    """One rank: open the session, make the updates, say what was held."""
    from burnish.parallel.runtime import prepare_process

    prepare_process()
    from burnish.optim.masters import local
    from burnish.recipe.load import load_recipe
    from burnish.training.forecast import RESERVE
    from burnish.training.launching import all_ranks
    from burnish.training.run import open_readied
    from burnish.training.stages import ready
    from burnish.training.step import take_step

    asked = load_recipe(recipe).recipe
    with all_ranks(asked) as ranks:
        with ranks.one_before_others("rows"):
            readied = ready(asked)
        before, peak = anonymous(), Peak()
        session = open_readied(asked, readied, from_scratch=False, ranks=ranks)
        loading = peak.bytes - before
        for _ in range(STEPS):
            take_step(session)
        own = {id(p): local(p) for p in (*session.model.parameters(), *session.masters.parameters.values())}
        gradients = [local(p) for p in session.masters.parameters.values()]
        moments = [local(value) for value in session.optimizer.state().values()]
        expected = session.expected
    held = {
        "before": before,
        "state": sum(size_of(each) for each in (own.values(), gradients, moments)),
        "loading": loading,
        "peak": peak.bytes - before,
        "planned": expected.total - RESERVE * expected.process,
    }
    print(json.dumps({key: round(value / MEGA) for key, value in held.items()}), flush=True)


def size_of(tensors: Iterable[Any]) -> int:
    """Bytes of tensors; a gradient has those of its parameter."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Peak:
    """The most of this process's own memory since now, looked at every 2 ms."""

    def __init__(self) -> None:
        self.bytes = anonymous()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.bytes = max(self.bytes, anonymous())
            time.sleep(0.002)


def anonymous() -> int:
    """Resident memory of this process that is not a file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not say RssAnon")


def markdown(table: list[dict[str, Any]]) -> str:
    """The table as docs/distributed.md has it."""
    lines = ["| " + " | ".join(table[0]) + " |", "|" + "---|" * len(table[0])]
    return "\n".join(
        [*lines, *("| " + " | ".join(f"{value:,}" for value in row.values()) + " |" for row in table)]
    )


def main() -> None:
    """Read the command line, measure, print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--member", type=Path, help=argparse.SUPPRESS)
    asked.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    asked.add_argument("--keys", nargs="+", default=[], metavar="KEY=VALUE")
    asked.add_argument("--small", action="store_true", help="a model of nothing")
    given = asked.parse_args()
    if given.member is not None:
        member(given.member)
        return
    keys = {key: yaml.safe_load(value) for key, _, value in (said.partition("=") for said in given.keys)}
    with tempfile.TemporaryDirectory(prefix="burnish-ranks-") as place:
        os.environ["BURNISH_CACHE"] = f"{place}/cache"
        os.environ["OMP_NUM_THREADS"] = "1"
        shape = SMALL if given.small else SHAPE
        print(markdown(measure(Path(place), shape, given.ranks, keys)))


if __name__ == "__main__":
    main()
