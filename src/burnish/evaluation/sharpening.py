"""What training does to single tokens: the probability of each graded one, before and after.

token          p before   -ln p      p after   -ln p
" Paris"           .41    0.89          .99     0.01
"<|im_end|>"       .00    9.21          .99     0.01      the base never learned to stop
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from burnish.data.pack import build_pack
from burnish.models.forward import graded_nll, pack_attention, why_unpacked
from burnish.models.generate import evaluating
from burnish.types import Example


@dataclass(frozen=True, slots=True)
class GradedToken:
    """A graded token and what a model thinks of it."""

    text: str
    probability: float

    @property
    def surprise(self) -> float:
        """-ln p: the token's part in the loss, in nats."""
        return abs(math.log(self.probability)) if self.probability > 0 else math.inf


def graded_tokens(
    model: PreTrainedModel | PeftModel, example: Example, pieces: Sequence[str]
) -> list[GradedToken]:
    """The graded tokens of one example with the model's probability of each; `pieces` is the text of every token."""
    packed = why_unpacked(model) is None
    with evaluating(model), pack_attention(model, packed=packed):
        nll = graded_nll(model, build_pack([example]), packed=packed)
    texts = [piece for piece, weight in zip(pieces, example.weights, strict=True) if weight]
    return [GradedToken(text, p) for text, p in zip(texts, torch.exp(-nll).tolist(), strict=True)]


def mean_surprise(tokens: Sequence[GradedToken]) -> float:
    """The loss of the example: the mean of -ln p over its graded tokens."""
    return sum(token.surprise for token in tokens) / len(tokens)
