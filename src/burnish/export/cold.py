"""The other side of the parity gate: what a stranger finds who loads the export with transformers (and PEFT) alone.

    python -P cold.py EXPORT_DIRECTORY PROBE.json REPORT.json

Run by path, in a new process. Nothing of burnish is imported here, and that is one of the checks. Each check says what
it saw and what it expected; one that raises has failed.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

Check = dict[str, Any]


def examine(directory: Path, probe_path: Path) -> list[Check]:
    """All checks of an exported folder against a probe."""
    probe = json.loads(probe_path.read_text(encoding="utf-8"))
    with safe_open(probe_path.with_suffix(".safetensors"), framework="pt") as file:
        logits = [file.get_tensor(f"logits.{k}") for k in range(len(file.keys()))]
    checks = [attempt(name, check, directory, probe) for name, check in ON_FILES.items()]
    try:
        model, loading = load(directory, probe)
    except Exception as error:
        return [*checks, failed("loads", error)]
    checks.append(loading)
    checks += [attempt(name, check, model, directory, probe) for name, check in ON_MODEL.items()]
    return [*checks, *attempt_all("logits", lambda: on_probes(model.float(), directory, probe, logits))]


def attempt(name: str, check: Callable[..., tuple[Any, Any]], *given: Any) -> Check:
    """A check by its saw and expected."""
    try:
        saw, expected = check(*given)
    except Exception as error:
        return failed(name, error)
    return {"check": name, "ok": saw == expected, "saw": saw, "expected": expected}


def attempt_all(name: str, checks: Callable[[], Iterator[Check]]) -> list[Check]:
    """Checks that are made together."""
    try:
        return list(checks())
    except Exception as error:
        return [failed(name, error)]


def failed(name: str, error: Exception) -> Check:
    """A check that could not be made."""
    return {
        "check": name,
        "ok": False,
        "saw": f"{type(error).__name__}: {error}"[:2000],
        "expected": "no error",
    }


# ---- on files: tokenizer, template, stop ids, dtypes


def template(directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """The template, byte for byte, as transformers finds it and as it lies there."""
    found = AutoTokenizer.from_pretrained(directory, local_files_only=True).chat_template
    file = directory / "chat_template.jinja"
    lies = file.read_bytes().decode() if file.is_file() else None
    return [found, lies], [probe["template"]] * 2


def special_tokens(directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """The special tokens by name: a template may print any of them."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    return {key: str(value) for key, value in tokenizer.special_tokens_map.items()}, probe["special_tokens"]


def num_tokens(directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """How many tokens the tokenizer has."""
    return len(AutoTokenizer.from_pretrained(directory, local_files_only=True)), probe["num_tokens"]


def ids(directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """What each conversation becomes in front of the model."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    asked = [one for one in probe["probes"] if "prompt_ids" in one]
    return [prompt_ids(tokenizer, one, probe) for one in asked], [one["prompt_ids"] for one in asked]


def prompt_ids(tokenizer: Any, one: dict[str, Any], probe: dict[str, Any]) -> list[int]:
    """One conversation as transformers' own apply_chat_template encodes it."""
    if probe["template"] is None:
        text = "\n".join(message["content"] for message in one["messages"])
        return list(tokenizer(text)["input_ids"])
    given = dict(probe["chat_template_kwargs"])
    if probe["date"]:  # a template that prints the day was trained with one day, and is asked with it
        day = datetime.datetime.fromisoformat(probe["date"])
        given["strftime_now"] = day.strftime
    encoded = tokenizer.apply_chat_template(
        one["messages"],
        tools=one["tools"],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **given,
    )
    return list(encoded["input_ids"])


def stop_ids(directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """Where generation ends, by generation_config.json."""
    config = GenerationConfig.from_pretrained(directory, local_files_only=True)
    found = config.eos_token_id
    return sorted([found] if isinstance(found, int) else found or []), probe["stop_ids"]


def dtypes(directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """The dtypes in the weight files' headers."""
    kinds = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
    return sorted(kind for kind in kinds if "F" in kind), probe["dtypes"]


ON_FILES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "template": template,
    "special_tokens": special_tokens,
    "num_tokens": num_tokens,
    "ids": ids,
    "stop_ids": stop_ids,
    "dtype": dtypes,
}


# ---- on the model


def load(directory: Path, probe: dict[str, Any]) -> tuple[Any, Check]:
    """The model as a stranger loads it, and whether every key had its place."""
    if probe["base"] is None:
        model, info = AutoModelForCausalLM.from_pretrained(
            directory, dtype="auto", local_files_only=True, output_loading_info=True
        )
        astray = {kind: sorted(map(str, info.get(kind) or [])) for kind in KINDS_ASTRAY}
        return model.eval(), compared("keys", astray, {kind: [] for kind in KINDS_ASTRAY})
    return load_adapter(directory, probe)


KINDS_ASTRAY = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def compared(name: str, saw: Any, expected: Any) -> Check:
    """A check from two values."""
    return {"check": name, "ok": saw == expected, "saw": saw, "expected": expected}


def load_adapter(directory: Path, probe: dict[str, Any]) -> tuple[Any, Check]:
    """The base with the adapter on it, as PEFT documents it; PEFT itself only warns of keys without a place."""
    from peft import PeftModel, get_peft_model_state_dict

    base = AutoModelForCausalLM.from_pretrained(probe["base"], dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if (directory / "bottleneck.json").is_file():
        return load_with_own_loader(base, directory)
    model = PeftModel.from_pretrained(base, directory).eval()
    with safe_open(directory / "adapter_model.safetensors", framework="pt") as file:
        written = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    held = get_peft_model_state_dict(model, save_embedding_layers=True)
    needed = get_peft_model_state_dict(model, save_embedding_layers=False).keys()
    astray = {
        "missing_keys": sorted(needed - written.keys()),
        "unexpected_keys": sorted(written.keys() - held.keys()),
        "not_taken_over": sorted(
            name for name in written.keys() & held.keys() if not taken_over(written[name], held[name])
        ),
    }
    return model, compared("keys", astray, {kind: [] for kind in astray})


def load_with_own_loader(base: Any, directory: Path) -> tuple[Any, Check]:
    """The base with a bottleneck on it, by the export's own loader, which raises where a tensor has no place."""
    spec = importlib.util.spec_from_file_location("load_bottleneck", directory / "load_bottleneck.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_bottleneck(base, directory).eval(), compared("keys", "all taken", "all taken")


def taken_over(written: Tensor, held: Tensor) -> bool:
    """Whether a tensor of the file is what the model holds."""
    return written.shape == held.shape and bool((written.float() == held.float()).all())


def vocabulary(model: Any, directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """Rows of the embedding and of the head, and what the config says of them; room for every token."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    rows = [embedding.shape[0], head.weight.shape[0], model.config.get_text_config().vocab_size]
    return [*rows, probe["num_tokens"] <= rows[0]], [probe["rows"]] * 3 + [True]


def tied(model: Any, directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """Whether head and embedding are one tensor, as they were in training, and the config says so."""
    embedding, head = weight(model.get_input_embeddings()), weight(model.get_output_embeddings())
    said = bool(model.config.get_text_config().tie_word_embeddings)
    return [embedding.data_ptr() == head.data_ptr(), said], [probe["tied"]] * 2


def weight(module: Any) -> Tensor:
    """A module's own weight, below what PEFT may have put around it."""
    inner = getattr(module, "original_module", module)
    found: Tensor = getattr(inner, "base_layer", inner).weight
    return found


def loaded_dtype(model: Any, directory: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """The dtypes in memory after loading as the config says."""
    if probe["base"] is not None:  # an adapter takes the dtype of the base it is put on
        return None, None
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
    return sorted({names[p.dtype] for p in model.parameters() if p.is_floating_point()}), probe["dtypes"]


ON_MODEL: dict[str, Callable[..., tuple[Any, Any]]] = {
    "vocabulary": vocabulary,
    "tied": tied,
    "loaded_dtype": loaded_dtype,
}


# ---- on probes


def on_probes(model: Any, directory: Path, probe: dict[str, Any], expected: list[Tensor]) -> Iterator[Check]:
    """Logits within the bound, and the same greedy answers."""
    config = GenerationConfig.from_pretrained(directory, local_files_only=True)
    asked = [one for one in probe["probes"] if "prompt_ids" in one]
    found = [answer_logits(model, one) for one in asked]
    answers = [greedy(model, one, config, probe["answer_tokens"]) for one in asked]
    theirs = [one["answer_ids"] for one in asked]
    yield near("logits", found, expected, **probe["bound"])
    yield same_answers("greedy", answers, theirs, found, expected)


def near(name: str, found: list[Tensor], expected: list[Tensor], *, share: float, why: str) -> Check:
    """Whether logits are within `share` of the largest of those expected (at least 1e-4) of them."""
    apart = [float((mine - theirs).abs().max()) for mine, theirs in zip(found, expected, strict=True)]
    allowed = [max(1e-4, share * float(theirs.abs().max())) for theirs in expected]
    return {
        "check": name,
        "ok": all(one <= most for one, most in zip(apart, allowed, strict=True)),
        "saw": {
            "probes": len(apart),
            "largest_difference": max(apart, default=0.0),
            "kl": max((kl(theirs, mine) for mine, theirs in zip(found, expected, strict=True)), default=0.0),
        },
        "expected": {"at_most": min(allowed, default=1e-4), "share_of_largest_logit": share, "for": why},
    }


def same_answers(
    name: str, answers: list[list[int]], theirs: list[list[int]], found: list[Tensor], expected: list[Tensor]
) -> Check:
    """Whether greedy answers are the same; a tie of two tokens that the logits' difference may turn is counted."""
    ties = 0
    for k, logits in enumerate(expected):
        apart = 2 * float((found[k] - logits).abs().max())
        if is_tie(answers[k], theirs[k], logits, apart):
            ties += 1
            answers = [*answers[:k], theirs[k], *answers[k + 1 :]]
    return {**compared(name, answers, theirs), "ties": ties}


@torch.no_grad()
def answer_logits(model: Any, one: dict[str, Any]) -> Tensor:
    """The logits that each token of the answer is drawn from."""
    rows = model(input_ids=torch.tensor([one["prompt_ids"] + one["answer_ids"]])).logits[0].float()
    first = len(one["prompt_ids"]) - 1
    found: Tensor = rows[first : first + len(one["answer_ids"])]
    return found


def kl(reference: Tensor, found: Tensor) -> float:
    """The mean divergence of the exported model's distributions from those of training, in nats."""
    logs = reference.double().log_softmax(-1)
    return float((logs.exp() * (logs - found.double().log_softmax(-1))).sum(-1).mean())


@torch.no_grad()
def greedy(model: Any, one: dict[str, Any], config: GenerationConfig, limit: int) -> list[int]:
    """The greedy answer, ended by the stop ids that were exported."""
    prompt = torch.tensor([one["prompt_ids"]])
    produced = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        generation_config=config,
        max_new_tokens=limit,
        do_sample=False,
    )
    found: list[int] = produced[0, prompt.shape[1] :].tolist()
    return found


def is_tie(answer: list[int], expected: list[int], reference: Tensor, apart: float) -> bool:
    """Whether two answers part where training's own logits had two tokens no further apart than `apart`."""
    for k, (mine, theirs) in enumerate(zip(answer, expected, strict=False)):
        if mine != theirs:
            return float(reference[k, theirs] - reference[k, mine]) <= apart
    return False


def main(directory: str, probe: str, report: str) -> None:
    """Write the report of one examination."""
    disable_progress_bar()
    checks = examine(Path(directory), Path(probe))
    warm = sorted(name for name in sys.modules if name.split(".")[0] == "burnish")
    checks.append(compared("nothing_of_burnish", warm, []))
    Path(report).write_text(json.dumps(checks), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
