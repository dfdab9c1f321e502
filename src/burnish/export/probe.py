"""What the parity gate asks: conversations, and what the model of training makes of them.

    probe.json         template, stop ids, dtype, vocabulary; for each conversation its prompt ids and greedy answer
    probe.safetensors  logits.0, logits.1, ...: (T, V) fp32, those that each answer token was drawn from

The gate's process reads these two files and nothing else of burnish.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from burnish.chat.template import TemplateRefusal
from burnish.export.cold import weight
from burnish.export.forms import Quantization
from burnish.export.source import Source
from burnish.export.weights import float_dtypes
from burnish.models.generate import evaluating, generate
from burnish.models.locate import locate
from burnish.models.tokenizer import ChatTokenizer, Prompt

ANSWER_TOKENS = 16
"""How much of each greedy answer is compared; the whole one where it ends before that."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}

PROBES: tuple[tuple[Prompt, list[dict[str, Any]] | None], ...] = (
    ([{"role": "user", "content": "Hello! Who are you?"}], None),
    (
        [
            {"role": "user", "content": "Name a river."},
            {"role": "assistant", "content": "The Rhine."},
            {"role": "user", "content": "And another one?"},
        ],
        None,
    ),
    (
        [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        None,
    ),
    ([{"role": "user", "content": "def f(x):\n\treturn x  # naïve, 日本語, 🙂\n\n"}], None),
    ([{"role": "user", "content": "Is it raining in Oslo?"}], [WEATHER]),
)
"""Beside the recipe's own sample prompts: turns, a system prompt, scripts and whitespace, a tool."""


EXACT: dict[str, Any] = {"share": 1e-5, "why": "the same numbers in fp32"}
ROUNDED: dict[torch.dtype, dict[str, Any]] = {
    torch.float32: EXACT,
    torch.float16: {"share": 2**-8, "why": "training's weights were rounded to 11 bits"},
    torch.bfloat16: {"share": 2**-5, "why": "training's weights were rounded to 8 bits"},
}
"""How far logits may be from training's once weights were rounded, as a share of the largest of them."""


def asked(source: Source) -> Iterator[dict[str, Any]]:
    """Each probe as it is asked, with the ids that training would feed; one that the template refuses says so."""
    limit = num_positions_of(source)
    samples: list[tuple[Prompt, list[dict[str, Any]] | None]] = [
        (prompt, None) for prompt in source.recipe.sample_prompts[:4]
    ]
    for prompt, tools in [*samples, *PROBES]:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        probe: dict[str, Any] = {"messages": messages, "tools": tools}
        try:
            ids = source.tokenizer.prompt_ids(messages, tools)
        except TemplateRefusal as error:
            yield {**probe, "refused": error.message}
            continue
        if _spells_control(source.tokenizer, messages):
            yield {**probe, "refused": "it spells a control token, which training feeds as plain text"}
        elif any(message.get("tool_calls") for message in messages):
            yield {
                **probe,
                "refused": "it holds tool calls, which training spells as the template wants them",
            }
        elif limit is None or len(ids) + ANSWER_TOKENS <= limit:
            yield {**probe, "prompt_ids": ids}


def num_positions_of(source: Source) -> int | None:
    """The most tokens the model has positions for."""
    said = source.config.get("max_position_embeddings") or source.config.get("n_positions")
    return int(said) if said else None


def _spells_control(tokenizer: ChatTokenizer, messages: list[dict[str, Any]]) -> bool:
    text = "\n".join(str(message["content"]) for message in messages)
    return any(token in text for token in tokenizer.tokenizer.get_added_vocab())


def take(model: PreTrainedModel | PeftModel, source: Source) -> tuple[list[dict[str, Any]], list[Tensor]]:
    """Ask the model of training every probe: greedy answers, and the logits that they were drawn from."""
    probes, logits = [], []
    for probe in asked(source):
        if "prompt_ids" in probe:
            answer = generate(
                model, [probe["prompt_ids"]], stop_ids=source.stop_ids, max_new_tokens=ANSWER_TOKENS
            )[0]
            probe["answer_ids"] = answer.completion_ids
            logits.append(answer_logits(model, probe["prompt_ids"], answer.completion_ids))
        probes.append(probe)
    return probes, logits


def answer_logits(
    model: PreTrainedModel | PeftModel, prompt_ids: list[int], answer_ids: list[int]
) -> Tensor:  # (T, V) for T answer tokens
    """The logits that each token of an answer is drawn from."""
    with evaluating(model):
        rows = model(input_ids=torch.tensor([prompt_ids + answer_ids])).logits[0]
    first = len(prompt_ids) - 1
    kept: Tensor = rows[first : first + len(answer_ids)].float().contiguous()
    return kept


def ask_again(model: PreTrainedModel | PeftModel, probes: list[dict[str, Any]]) -> list[Tensor]:
    """The logits of another model for the very same prompts and answers."""
    return [
        answer_logits(model, one["prompt_ids"], one["answer_ids"]) for one in probes if "answer_ids" in one
    ]


def answers(probes: list[dict[str, Any]]) -> list[list[int]]:
    """The greedy answers that were taken."""
    return [probe["answer_ids"] for probe in probes if "answer_ids" in probe]


def tell_gguf(path: Path, quantization: Quantization) -> Path:
    """Add to probe.json how the file that is made of the merged model is quantised."""
    value = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps({**value, "quantization": quantization.value}))
    return path


def write_probe(
    folder: Path,
    source: Source,
    probes: list[dict[str, Any]],
    logits: list[Tensor],
    *,
    written: dict[str, Any],
) -> Path:
    """Write probe.json and probe.safetensors; `written` says what the weights must be found to be."""
    tokenizer = source.tokenizer.tokenizer
    template = source.tokenizer.template
    save_file({f"logits.{k}": rows for k, rows in enumerate(logits)}, folder / "probe.safetensors")
    value = {
        "template": template.source if template else None,
        "special_tokens": {key: str(token) for key, token in tokenizer.special_tokens_map.items()},
        "date": source.identity.date,
        "chat_template_kwargs": source.identity.chat_template_kwargs,
        "stop_ids": source.stop_ids,
        "num_tokens": len(tokenizer),
        "answer_tokens": ANSWER_TOKENS,
        "bound": EXACT,
        "probes": probes,
        **written,
    }
    path = folder / "probe.json"
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    return path


def described(model: PreTrainedModel | PeftModel) -> dict[str, Any]:
    """What of the weights must be found again: dtypes, rows of the vocabulary, whether the head is the embedding."""
    embedding, head = weight(model.get_input_embeddings()), weight(model.get_output_embeddings())
    return {
        "dtypes": float_dtypes(model),
        "rows": len(embedding),
        "tied": head.data_ptr() == embedding.data_ptr(),
    }


def base_of(source: Source) -> str:
    """The folder in which this machine has the base."""
    return str(locate(source.recipe.model).resolve())
