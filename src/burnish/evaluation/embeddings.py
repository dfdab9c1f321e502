"""Prompts as points: the mean of a base model's last hidden states, the mean of all prompts taken off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from burnish.curation.select import Points
from burnish.models.assistant import load_assistant
from burnish.models.forward import unwrapped
from burnish.models.generate import evaluating, num_positions

MOST_TOKENS = 512
TOKENS_PER_PASS = 4096


def embed(texts: Sequence[str], model: str) -> Points:
    """One unit vector per text, `(N, H)`. Hidden states share one large direction, which tells nothing apart."""
    assistant = load_assistant(model)
    backbone = unwrapped(assistant.model).base_model
    limit = min(MOST_TOKENS, num_positions(assistant.model.config) or MOST_TOKENS)
    tokenizer = assistant.tokenizer.tokenizer
    ids = [list(tokenizer(text, truncation=True, max_length=limit)["input_ids"]) or [0] for text in texts]
    order = sorted(range(len(ids)), key=lambda k: len(ids[k]))
    points = np.zeros((len(ids), assistant.model.config.get_text_config().hidden_size), dtype=np.float32)
    start = 0
    with evaluating(assistant.model):
        while start < len(order):
            batch = [order[start]]
            while start + len(batch) < len(order):
                longest = len(ids[order[start + len(batch)]])
                if longest * (len(batch) + 1) > TOKENS_PER_PASS:
                    break
                batch.append(order[start + len(batch)])
            points[batch] = _pooled(backbone, [ids[k] for k in batch])
            start += len(batch)
    points -= points.mean(axis=0)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    found: Points = points / np.maximum(lengths, 1e-12)
    return found


def _pooled(
    backbone: torch.nn.Module, ids: list[list[int]]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    longest = max(map(len, ids))
    device = next(backbone.parameters()).device
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=device)
    states = backbone(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state.float()
    weights = mask[..., None].float()
    return ((states * weights).sum(1) / weights.sum(1)).cpu().numpy()  # type: ignore[no-any-return]
