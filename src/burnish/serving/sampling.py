"""From logits to a token, as a request wants it, and what the model itself thought of that token.

Sampling(temperature=0.0)                        the likeliest token
Sampling(temperature=0.8, top_p=0.9, seed=7)     drawn; the same again from the same seed, whatever runs beside it
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

LOWEST = -9999.0
"""What the API writes for the logarithm of zero."""

_STREAM = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; penalties and biases count what was generated, not the prompt."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def changes_logits(self) -> bool:
        """Whether a greedy choice could differ from the likeliest token."""
        return bool(self.presence_penalty or self.frequency_penalty or self.logit_bias)


@dataclass(frozen=True, slots=True)
class Thought:
    """The log-probability of a token in the model's own distribution, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one sequence; `choice` tells the answers to one request apart."""

    def __init__(self, sampling: Sampling, choice: int = 0) -> None:
        self._sampling = sampling
        self._counts: Counter[int] = Counter()
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self._generator = torch.Generator().manual_seed((seed + choice * _STREAM) % 2**64)

    def choose(self, logits: Tensor) -> int:
        """The next token, from `(V,)` logits in fp32."""
        sampling = self._sampling
        if sampling.changes_logits:
            logits = self._adjusted(logits)
        is_greedy = sampling.temperature == 0.0 or sampling.top_p == 0.0
        token = int(logits.argmax()) if is_greedy else self._drawn(logits)
        if sampling.presence_penalty or sampling.frequency_penalty:
            self._counts[token] += 1
        return token

    def _adjusted(self, logits: Tensor) -> Tensor:
        sampling, logits = self._sampling, logits.clone()
        for token, bias in sampling.logit_bias.items():
            logits[token] += bias
        for token, count in self._counts.items():
            logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
        return logits

    def _drawn(self, logits: Tensor) -> int:
        # The greatest is taken off first: divided by a tiny temperature, the others go to -inf and not to NaN.
        shares = torch.softmax((logits - logits.max()) / self._sampling.temperature, dim=-1).cpu()
        if self._sampling.top_p < 1.0:
            ordered, order = shares.sort(descending=True, stable=True)
            # Kept: the fewest tokens that reach top_p together. [.5 .3 .2] at .6 keeps .5 and .3.
            kept = ordered.cumsum(-1) - ordered < self._sampling.top_p
            shares = torch.zeros_like(shares).scatter_(0, order[kept], ordered[kept])
        return int(torch.multinomial(shares, 1, generator=self._generator))


def think(logits: Tensor, token: int, num_top: int) -> Thought:
    """What the model's own distribution, before temperature and penalties, says of a token."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    best, which = logprobs.topk(min(num_top, len(logprobs)))
    top = tuple((int(i), _finite(float(p))) for i, p in zip(which, best, strict=True))
    return Thought(token, _finite(float(logprobs[token])), top)


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
