"""The model card: README.md of an export, written from the run directory and from nothing else.

What the run does not know (the data's licence, what the model is for) is said to be unknown, not made up.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from burnish.export.forms import GGUF_NAME, Form, Order
from burnish.export.parity import Parity, brief
from burnish.export.source import Source
from burnish.models.locate import locate

UNKNOWN = "not recorded in the run; whoever publishes this has to say"
SHOWN_KEYS = (
    *("adapter", "lora_r", "lora_alpha", "lora_target_modules", "learning_rate", "lr_scheduler", "optimizer"),
    *(
        "weight_decay",
        "global_batch_size",
        "num_epochs",
        "max_steps",
        "max_length",
        "train_on",
        "reasoning",
        "dtype",
    ),
    "seed",
)


def write_card(
    source: Source,
    order: Order,
    folder: Path,
    *,
    parity: Parity,
    command: list[str] | None,
    remarks: Sequence[str],
) -> None:
    """Write README.md."""
    sections = [
        _front_matter(source, order.form),
        f"# {source.name}",
        f"{code(source.recipe.model)}, fine-tuned with burnish "
        f"({code(source.recipe.adapter.value)}). This folder is the run exported as `{order.form.value}`.",
        *_section("Use", _use(source, order, command)),
        *_section("Mind", remarks),
        *_section("Data", _data(source)),
        *_section("Recipe", _recipe(source)),
        *_section("Scores", _scores(source)),
        *_section("Licence", _licence(source)),
        *_section("Parity", _parity(parity)),
    ]
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def code(value: object) -> str:
    """A value from outside as inline code: no markup in it is read, and it cannot end the code early."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _section(title: str, lines: Sequence[str] | Iterator[str]) -> list[str]:
    lines = list(lines)
    return [f"## {title}", "\n".join(f"- {line}" for line in lines)] if lines else []


def _front_matter(source: Source, form: Form) -> str:
    fields: dict[str, Any] = {
        "library_name": {"adapter": "peft", "gguf": "gguf", "ollama": "gguf"}.get(form.value, "transformers"),
        "pipeline_tag": "text-generation",
        "tags": ["burnish", "sft"],
    }
    if source.base == source.recipe.model:  # a hub id; a folder of this machine means nothing elsewhere
        fields["base_model"] = source.base
        fields["base_model_relation"] = "adapter" if form is Form.ADAPTER else "finetune"
    licence = base_licence(source)
    if licence:
        fields["license"] = licence
    return f"---\n{yaml.safe_dump(fields, sort_keys=True, allow_unicode=True)}---"


def base_licence(source: Source) -> str | None:
    """The licence that the base's own card names, None where there is none."""
    if source.recipe.model == "marble":
        return "apache-2.0"
    card = locate(source.recipe.model) / "README.md"
    if not card.is_file():
        return None
    matter = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        fields = yaml.safe_load(matter[1]) if matter else None
    except yaml.YAMLError:
        return None
    licence = fields.get("license") if isinstance(fields, dict) else None
    return licence if isinstance(licence, str) and re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", licence) else None


def _use(source: Source, order: Order, command: list[str] | None) -> Iterator[str]:
    stops = ", ".join(
        code(source.tokenizer.tokenizer.convert_ids_to_tokens(stop)) for stop in source.stop_ids
    )
    match order.form:
        case Form.HF:
            yield "transformers: `AutoModelForCausalLM.from_pretrained(DIR)`, with `AutoTokenizer` and its template"
        case Form.ADAPTER if source.adapter is not None and source.adapter.is_bottleneck:
            yield f"transformers: load {code(source.base)}, then `load_bottleneck(base, DIR)` of load_bottleneck.py"
        case Form.ADAPTER:
            yield f"PEFT: load {code(source.base)}, then `PeftModel.from_pretrained(base, DIR)`"
            if source.tokenizer.new_ids or _rows_grow(source):
                yield (
                    "first make room for the new tokens: "
                    f"`base.resize_token_embeddings({len(source.tokenizer)}, mean_resizing=False)`"
                )
        case Form.VLLM:
            yield code(shlex.join(command or []))
        case Form.GGUF:
            name = GGUF_NAME.format(order.quantization.value)
            yield f"llama.cpp: `llama-server -m {name} --jinja`"
        case Form.OLLAMA:
            yield "Ollama: `ollama create NAME -f Modelfile`, in this folder"
    yield f"an answer ends at {stops}"
    if source.identity.chat_template_kwargs:
        yield f"the template was trained with the variables {code(source.identity.chat_template_kwargs)}: give them"
    if source.identity.date:
        yield f"the chat template prints the day, and training fed {source.identity.date} throughout"


def _rows_grow(source: Source) -> bool:
    return bool((source.run.read("plan.json") if _has(source, "plan.json") else {}).get("new_token_ids"))


def _has(source: Source, name: str) -> bool:
    return (source.run.path / name).is_file()


def _data(source: Source) -> Iterator[str]:
    for dataset in source.recipe.datasets:
        yield f"{code(dataset.path)}, weight {dataset.weight:g}"
    summary = source.run.read("summary.json") if _has(source, "summary.json") else {}
    rows = summary.get("rows") or {}
    if rows:
        dropped = ", ".join(
            f"{count} {code(reason)}" for reason, count in (rows.get("dropped") or {}).items()
        )
        yield f"{rows.get('read')} rows read, {rows.get('used')} used, dropped: {dropped or 'none'}"
    certificate = source.run.read("certificate.json") if _has(source, "certificate.json") else {}
    if certificate:
        yield (
            f"{certificate.get('graded_tokens'):,} of {certificate.get('tokens'):,} tokens graded, "
            f"{certificate.get('held_out')} rows held out; certificate {code(str(certificate.get('key'))[:16])}"
        )


def _recipe(source: Source) -> Iterator[str]:
    said = source.recipe.model_dump(mode="json")
    for key in SHOWN_KEYS:
        if key in said and said[key] is not None and not (key.startswith("lora") and source.adapter is None):
            yield f"{key}: {code(said[key])}"
    environment = source.run.read("environment.json") if _has(source, "environment.json") else {}
    versions = [
        f"{name} {environment[name]}"
        for name in ("burnish", "torch", "transformers", "peft")
        if name in environment
    ]
    if versions:
        yield f"made with {', '.join(versions)}"


def _scores(source: Source) -> Iterator[str]:
    summary = source.run.read("summary.json") if _has(source, "summary.json") else {}
    for key, name in (
        ("train_loss", "training loss, last"),
        ("eval_loss", "held-out loss"),
        ("best_eval_loss", "best"),
    ):
        if summary.get(key) is not None:
            yield f"{name}: {summary[key]:.4f}"
    lines = [line for line in source.run.lines("metrics.jsonl") if line.get("kind") == "eval"]
    if lines and lines[-1].get("accuracy") is not None:
        last = lines[-1]
        yield f"held-out accuracy of graded tokens: {last['accuracy']:.1%} of {last['graded_tokens']}"
    if summary:
        graded, ending = summary.get("graded_tokens"), summary.get("stopped_by")
        yield f"{summary.get('steps')} updates, {graded:,} graded tokens; {ending}"


def _licence(source: Source) -> Iterator[str]:
    licence = base_licence(source)
    yield f"of the base, by its own card: {code(licence) if licence else UNKNOWN}"
    yield f"of the data: {UNKNOWN}"


def _parity(parity: Parity) -> Iterator[str]:
    yield f"opened cold, by another process, and found to be what was trained (parity.json): {brief(parity.checks)}"
    for check in parity.checks:
        saw = check["saw"]
        if check["check"] in ("logits", "merge", "rounding") and isinstance(saw, dict):
            yield (
                f"{check['check']}: logits within {saw['largest_difference']:.2g} "
                f"(bound {check['expected']['at_most']:.2g}), KL {max(0.0, saw['kl']):.2g}"
            )
        if check["check"] == "gguf_logits" and isinstance(saw, dict):
            same = saw["same_next_token"]
            yield f"quantised: KL {max(0.0, saw['kl']):.2g} from the merged weights, {same:.1%} same next token"
