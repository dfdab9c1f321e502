"""F12: model directories and adapters from elsewhere, with something in them changed: refused, or read the same.

Each trial runs in a fork, so that a crash of a library's own code is seen and survived. A canary file lies in every
directory that would run code; nothing may ever write where it points.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from burnish.errors import BurnishError
from burnish.experiments.reliability.bench import in_a_child, make_model, wait_for
from burnish.experiments.reliability.outcome import Outcome
from burnish.experiments.reliability.readers import mutate
from burnish.models.load import load_model
from burnish.models.tokenizer import load_chat_tokenizer

PATIENCE = 60.0
PER_CHILD = 50
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
CODE = "import pathlib; pathlib.Path(__file__).with_name('CANARY').write_text('run')\n"
TRAPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}}),
    ("config.json", {"_attn_implementation": "someone/kernel"}),
    ("config.json", {"_attn_implementation_internal": "someone/kernel:evil"}),
    ("config.json", {"attn_implementation": "someone/kernel"}),
    ("config.json", {"text_config": {"_attn_implementation": "someone/kernel"}}),
    ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}),
    ("config.json", {"experts_implementation": "someone/kernel"}),
    ("config.json", {"quantization_config": {"quant_method": "evil", "modules": "evil"}}),
    ("config.json", {"model_file": "evil.py"}),
    ("config.json", {"custom_pipelines": {"x": {"impl": "evil.Pipe"}}}),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ("tokenizer_config.json", {"chat_template": "{{ ''.__class__.__mro__ }}"}),
    ("generation_config.json", {"custom_generate": "evil.py"}),
)


def mutate_artifacts(place: Path, *, seed: int, trials: int = 10_000) -> Outcome:
    """F12: fields that bring code first, then files with bytes changed at random."""
    outcome = Outcome("F12", "model directories changed at random", seed)
    rng = random.Random(seed)
    whole = make_model(place / "whole")
    (whole / "evil.py").write_text(CODE)
    expected = fingerprint(whole)
    for name, keys in TRAPS:
        directory = _with(whole, place / "trap", name, keys)
        _one_child(outcome, [(f"code in {name}", directory)], expected, place)
    number = 0
    while outcome.trials < trials:
        batch = []
        for _ in range(min(PER_CHILD, trials - outcome.trials)):
            name = FILES[number % len(FILES)]
            directory = _copy(whole, place / f"m{number % PER_CHILD}")
            path = directory / name
            content = path.read_bytes()
            cut = 8 + int.from_bytes(content[:8], "little") if name.endswith("safetensors") else len(content)
            path.unlink()
            path.write_bytes(mutate(content[:cut], rng) + content[cut:])
            batch.append((name, directory))
            number += 1
        _one_child(outcome, batch, expected, place)
    return outcome


def _copy(whole: Path, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for path in whole.iterdir():
        os.link(path, directory / path.name)
    return directory


def _with(whole: Path, directory: Path, name: str, keys: dict[str, Any]) -> Path:
    _copy(whole, directory)
    path = directory / name
    said = json.loads(path.read_bytes()) if path.exists() else {}
    path.unlink(missing_ok=True)
    path.write_text(json.dumps({**said, **keys}))
    return directory


def fingerprint(directory: Path) -> list[Any]:
    """What a directory is read as: weights by name, and the ids of a few texts."""
    model = load_model(str(directory))
    tokenizer = load_chat_tokenizer(str(directory), chat=False).tokenizer
    texts = ("The capital of France is", " é 日本\n\n<|im_end|>")
    state = {name: tensor.double().sum().item() for name, tensor in sorted(model.state_dict().items())}
    return [state, [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]]


def _one_child(outcome: Outcome, batch: list[tuple[str, Path]], expected: list[Any], place: Path) -> None:
    """Read a batch in a fork, which appends a line for each to a file; what is missing crashed it."""
    log = place / "results.jsonl"
    log.unlink(missing_ok=True)

    def job() -> None:
        with log.open("a") as file:
            for name, directory in batch:
                file.write(json.dumps([name, *_judged(directory, expected)]) + "\n")
                file.flush()

    code = wait_for(in_a_child(job, place / "log"), seconds=PATIENCE * len(batch))
    said = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for name, kind, failure in said:
        outcome.note(f"{name}: {kind}", failure)
    if len(said) < len(batch):
        name, directory = batch[len(said)]
        kept = place / f"crash-{outcome.trials}"
        shutil.copytree(directory, kept)
        outcome.note(f"{name}: crashed", f"{kept.name} ended the process with {code}")
        _one_child(outcome, batch[len(said) + 1 :], expected, place) if batch[len(said) + 1 :] else None


def _judged(directory: Path, expected: list[Any]) -> tuple[str, str | None]:
    try:
        found = fingerprint(directory)
    except BurnishError as error:
        whole = bool(error.saw and error.rule and error.remedy)
        return "refused", None if whole else "an error without its three parts"
    except Exception as error:
        return "uncaught", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        if (directory / "CANARY").exists():
            raise SystemExit("code of a model directory was run")
    return ("read the same" if found == expected else "another model, read as what it says"), None
