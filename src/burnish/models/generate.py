"""Answers from a model: batched, left-padded, stopped by the stop tokens that training taught."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer: its ids (the stop token included, where it came) and why it ended, `stop` or `length`."""

    prompt_ids: list[int]
    completion_ids: list[int]
    finish_reason: str


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Within the block every module is in evaluation mode; after it, each is in the mode that it was in.

    Each by itself: PEFT's wrapper is in training mode around a base that is not, and `model.train(True)` would turn
    the base's dropout on, in a run that was evaluated, and not in one that was resumed.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block dropout is off and no gradient is kept; after it, modes are as they were."""
    with without_dropout(model), torch.no_grad():
        yield


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
) -> list[Generation]:
    """Continue each prompt until a stop token, `max_new_tokens` or the model's last position; temperature 0 is greedy.

    Prompts of like length share a batch, so that there is little padding; answers come in the prompts' order. A prompt
    whose answer may reach the model's last position is batched with those of its own length only: a longer neighbour
    would cut it short.
    Sampling draws from `seed`, and leaves torch's own random state as it was.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: dict[int, Generation] = {}
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch in _batches(
            order, prompts, batch_size, (num_positions(model.config) or sys.maxsize) - max_new_tokens
        ):
            produced = _generate_batch(
                model,
                [prompts[i] for i in batch],
                stop_ids=stop_ids,
                limit=max_new_tokens,
                temperature=temperature,
            )
            for index, ids in zip(batch, produced, strict=True):
                answers[index] = _ended(list(prompts[index]), ids, frozenset(stop_ids))
    return [answers[i] for i in range(len(prompts))]


def _batches(
    order: Sequence[int], prompts: Sequence[Sequence[int]], size: int, roomy: int
) -> Iterator[list[int]]:
    """Prompts in batches of at most `size`: of any lengths up to `roomy` tokens, beyond it of one length each."""
    batch: list[int] = []
    for index in order:
        length = len(prompts[index])
        if batch and (len(batch) == size or (length > roomy and length != len(prompts[batch[-1]]))):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _generate_batch(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    limit: int,
    temperature: float,
) -> list[list[int]]:
    longest = max(len(prompt) for prompt in prompts)
    limit = min(limit, max(1, (num_positions(model.config) or sys.maxsize) - longest))
    filler = stop_ids[0] if stop_ids else 0
    device = next(model.parameters()).device
    ids = torch.tensor([[filler] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0}
        if temperature > 0
        else {"do_sample": False}
    )
    produced: Tensor = model.generate(  # type: ignore[operator]  # any transformers causal LM has it
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=limit,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=filler,
        **sampling,
    )
    return [row.tolist() for row in produced[:, longest:]]


def num_positions(config: PreTrainedConfig) -> int | None:
    """The most tokens a model of this config has positions for; None where it does not say."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def _ended(prompt: list[int], produced: list[int], stops: frozenset[int]) -> Generation:
    """Cut what a batch-mate's longer answer padded on."""
    for index, token in enumerate(produced):
        if token in stops:
            return Generation(prompt, produced[: index + 1], "stop")
    return Generation(prompt, produced, "length")
