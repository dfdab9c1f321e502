"""Several ranks on this machine's CPU over gloo: peak memory of each, and what a killed rank leaves behind.

    python benchmarks/ranks.py memory                    peak memory of a rank, sharded full tuning on 1, 2 and 4
    python benchmarks/ranks.py kills --times 20          one of two ranks killed at random instants, then resumed
    python benchmarks/ranks.py restarts --times 3        the same, with torchrun starting the ranks again by itself

Each prints a table; nothing is left behind but what --keep names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MEGA = 1e6
SHAPE = {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "num_attention_heads": 12}
"""85M parameters in layers, 0.6M in the vocabulary: weights dominate."""
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


def measure_memory(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """The peak of each rank's own memory (RssAnon) above what it had before the model was there."""
    recipe = make_recipe(folder, SHAPE, data_parallel="shard", max_steps=2, gradient_checkpointing=True)
    table = []
    for size in sizes:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        members = []
        for rank in range(size):
            said = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": size,
                "LOCAL_WORLD_SIZE": size,
                "MASTER_PORT": port,
            }
            told = {
                **os.environ,
                **{key: str(value) for key, value in said.items()},
                "MASTER_ADDR": "127.0.0.1",
            }
            command = [sys.executable, __file__, "member", str(recipe)]
            members.append(subprocess.Popen(command, env=told, stdout=subprocess.PIPE))
        found = [json.loads(member.communicate()[0].splitlines()[-1]) for member in members]
        table.append({"ranks": size, **{key: max(one[key] for one in found) for key in found[0]}})
        print(table[-1], flush=True)
    return table


def member(recipe: Path) -> None:
    """One rank: open the session, make the updates, say what was held."""
    from burnish.parallel.runtime import prepare_process

    prepare_process()
    from burnish.recipe.load import load_recipe
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
        opened = peak.bytes - before
        loss = [take_step(session).loss for _ in range(2)][-1]
        parameters = sum(p.numel() for p in session.model.parameters())
    held = {"parameters": parameters, "opened_MB": opened / MEGA, "peak_MB": (peak.bytes - before) / MEGA}
    print(json.dumps({**{key: round(value) for key, value in held.items()}, "loss": loss}), flush=True)


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


# Kills


def kill_and_resume(folder: Path, times: int, seed: int, how: str, *, restarts: int) -> int:
    """Kill one of two ranks at a random instant, go on, and compare with a run that nobody killed; how many differ."""
    recipe = make_recipe(folder, SMALL, num_epochs=4, save_steps=2, val_set_size=8, data_parallel=how)
    started = time.monotonic()
    subprocess.run(burnish("train", recipe, "run_name=straight", "--processes", "2"), check=True, **QUIET)
    whole, runs, draw = time.monotonic() - started, folder / "runs", random.Random(seed)
    bad = 0
    for number in range(times):
        run = runs / f"killed-{number}"
        more = ["--restarts", str(restarts)] if restarts else []
        at, victim = draw.uniform(0.1, 1.0) * whole, draw.randrange(2)
        launch = subprocess.Popen(
            burnish("train", recipe, f"run_name={run.name}", "--processes", "2", *more),
            start_new_session=True,
            **QUIET,
        )
        time.sleep(at)
        hit = kill_rank(launch.pid, victim)
        killed = time.monotonic()
        code = launch.wait()
        ended = time.monotonic() - killed
        step = newest(run)
        again = 0
        if code and (run / "resolved.yaml").exists():
            resumed = burnish("resume", str(run), "--processes", "2")
            again = subprocess.run(resumed, check=False, **QUIET).returncode
        elif code:
            subprocess.run(
                burnish("train", recipe, f"run_name={run.name}", "--processes", "2"), check=True, **QUIET
            )
        same = (run / "final").exists() and not different(runs / "straight", run)
        bad += not same
        print(
            f"{number:3} rank {victim} at {at:5.1f} s{'' if hit else ' (over)'}: ended after {ended:4.1f} s: {code}, "
            f"checkpoint {step}, resumed with {again}: {'equal' if same else 'DIFFERENT'}",
            flush=True,
        )
        shutil.rmtree(run, ignore_errors=True)
    return bad


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def burnish(*words: Any) -> list[str]:
    """A command line of burnish."""
    return [sys.executable, "-m", "burnish", *map(str, words)]


def kill_rank(launcher: int, rank: int) -> bool:
    """SIGKILL to one of a launcher's ranks, found by its environment; false where there is none (any more)."""
    for child in children(launcher):
        try:
            said = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in said:
                os.kill(child, signal.SIGKILL)
                return True
        except OSError:
            continue
    return False


def children(process: int) -> list[int]:
    """The processes that one has started."""
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []


def newest(run: Path) -> str:
    """The newest checkpoint's name."""
    steps = sorted(path.name for path in run.glob("checkpoints/step-*"))
    return steps[-1] if steps else "none"


def different(one: Path, other: Path) -> list[str]:
    """The files of the finished model and of the last checkpoint that differ, byte by byte."""
    last = max(path.name for path in one.glob("checkpoints/step-*"))
    files = [
        "final/model.safetensors",
        *(f"checkpoints/{last}/{kind}.safetensors" for kind in ("weights", "optimizer")),
    ]
    return [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()]


def main() -> None:
    """Read the command line, measure, print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=("memory", "kills", "restarts", "member"))
    asked.add_argument("recipe", nargs="?", type=Path)
    asked.add_argument("--times", type=int, default=20)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--how", default="replicate")
    asked.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    given = asked.parse_args()
    if given.what == "member":
        member(given.recipe)
        return
    with tempfile.TemporaryDirectory(prefix="burnish-ranks-") as place:
        os.environ["BURNISH_CACHE"] = f"{place}/cache"
        os.environ["OMP_NUM_THREADS"] = "1"
        if given.what == "memory":
            print(json.dumps(measure_memory(Path(place), given.ranks)))
        else:
            restarts = 2 if given.what == "restarts" else 0
            bad = kill_and_resume(Path(place), given.times, given.seed, given.how, restarts=restarts)
            print(f"{bad} of {given.times} differ")


if __name__ == "__main__":
    main()
