"""A model one can ask: weights, chat tokenizer and stop tokens together, from a run, a directory or a hub id.

A base model without a chat template is asked in plain text, as it was trained: it continues what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from burnish.adapters.bottleneck import JSON as BOTTLENECK_JSON
from burnish.adapters.bottleneck import load_bottleneck
from burnish.errors import DataError, UsageError
from burnish.models.generate import generate
from burnish.models.load import add_token_rows, default_device, load_model, stop_ids_of
from burnish.models.locate import locate
from burnish.models.rope import read_record, scale_positions
from burnish.models.tokenizer import ChatTokenizer, Prompt, load_chat_tokenizer

DEFAULT_NEW_TOKENS = 512
DEFAULT_TEMPERATURE = 0.8
"""What people ask with; small models asked greedily fall into loops that end nowhere (docs/lab_notes.md)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, and the ids on both sides; `finish_reason` is `stop` or `length`."""

    text: str
    finish_reason: str
    prompt_ids: list[int]
    completion_ids: list[int]


@dataclass(frozen=True, slots=True)
class Assistant:
    """A loaded model with the tokenizer and the stop ids it is to be asked with."""

    name: str
    model: PreTrainedModel | PeftModel
    tokenizer: ChatTokenizer
    stop_ids: tuple[int, ...]

    def answer(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 16,
    ) -> list[Answer]:
        """Answer prompts in their order; temperature 0 is greedy, above it answers are drawn from `seed`."""
        produced = generate(
            self.model,
            [self.tokenizer.prompt_ids(prompt) for prompt in prompts],
            stop_ids=self.stop_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=batch_size,
        )
        return [
            Answer(
                self.tokenizer.decode_answer(one.completion_ids),
                one.finish_reason,
                one.prompt_ids,
                one.completion_ids,
            )
            for one in produced
        ]


def load_assistant(
    name: str,
    *,
    adapter: str | None = None,
    dtype: torch.dtype | None = None,
    chat_template: str | None = None,
) -> Assistant:
    """The finished model of a run directory, or a model directory, hub id or `marble`, with an adapter if given."""
    place = finished(name)
    tokenizer = load_chat_tokenizer(_tokenizer_place(place, adapter), chat_template=chat_template, chat=False)
    model = load_model(place, dtype=dtype)
    beside = Path(place)
    if adapter is not None:
        model = _with_adapter(model, tokenizer, adapter)
    elif (beside / BOTTLENECK_JSON).is_file():
        model = load_bottleneck(model, beside)
    stops = tuple(dict.fromkeys([*stop_ids_of(model, tokenizer.tokenizer), *tokenizer.stop_ids]))
    return Assistant(name, model.to(default_device()).eval(), tokenizer, stops)


def finished(name: str) -> str:
    """`name`, or the `final` folder inside it if it is a run directory; UsageError where the run has none yet."""
    run = Path(name)
    if not (run / "resolved.yaml").is_file():
        return name
    if not (run / "final").is_dir():
        raise UsageError(
            f"{run} has no final model: the run was not finished",
            rule="a run writes final/ when its last update is done",
            remedy=f"burnish resume {run}",
        )
    return str(run / "final")


def _tokenizer_place(model: str, adapter: str | None) -> str:
    """An adapter that brings its tokenizer was trained with it."""
    if adapter is not None and (Path(adapter) / "tokenizer.json").is_file():
        return adapter
    return model


def _with_adapter(
    model: PreTrainedModel, tokenizer: ChatTokenizer, adapter: str
) -> PreTrainedModel | PeftModel:
    directory = locate(adapter)
    is_bottleneck = (directory / BOTTLENECK_JSON).is_file()
    if not is_bottleneck and not (directory / "adapter_config.json").is_file():
        raise DataError(
            f"{directory}: no adapter_config.json",
            rule="an adapter is a directory in PEFT's format, or burnish's own for a bottleneck",
            remedy="give the run's adapter/ folder; a run trained with adapter: full has none",
        )
    scale_positions(model, read_record(directory))
    rows = model.get_input_embeddings().weight.shape[0]
    add_token_rows(model, len(tokenizer), range(rows, len(tokenizer)))
    return load_bottleneck(model, directory) if is_bottleneck else PeftModel.from_pretrained(model, directory)
