"""What a sequence in the making remembers: its keys and values, in buffers of its own, and attention over them.

Sequences that are computed together share nothing but the width of a matrix product:

    row 0   "The capital of ..."   keys (H_kv, 19, D)     its query sees its 19 keys
    row 1   "Gold is"              keys (H_kv, 4, D)      its query sees its 4 keys
    row 2   (empty)                                       zeros

There is no padding to the left or the right and no mask to get wrong: a row's attention is the same few products
whatever the other rows are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache

from burnish.errors import UsageError
from burnish.models.attention import Rule, attention_named, shares_of

NAME = "burnish_rows"
_ROOM = 64  # buffers begin with as many places, and double
_QUERIES = 128  # queries of a prompt whose scores are held at a time


class Keys:
    """The keys and values of one sequence, layer by layer."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor, int]] = {}

    def append(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Take in `(H_kv, T, D)` after what is there."""
        keys, values, length = self._layers.get(layer, (None, None, 0))
        end = length + key.shape[1]
        if keys is None or values is None or keys.shape[1] < end:
            keys, values = _roomier(keys, key, length, end), _roomier(values, value, length, end)
        keys[:, length:end], values[:, length:end] = key, value
        self._layers[layer] = (keys, values, end)

    def seen(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values so far, `(H_kv, L, D)` each."""
        keys, values, length = self._layers[layer]
        return keys[:, :length], values[:, :length]


def _roomier(old: Tensor | None, like: Tensor, length: int, needed: int) -> Tensor:
    room = max(_ROOM, 1 << (needed - 1).bit_length())
    new = like.new_empty((like.shape[0], room, like.shape[2]))
    if old is not None:
        new[:, :length] = old[:, :length]
    return new


class Rows(Cache):  # type: ignore[misc]  # transformers is not typed
    """What transformers takes for its cache: row i of the batch belongs to `sequences[i]`; None is an empty row."""

    def __init__(self, sequences: Sequence[Keys | None]) -> None:
        super().__init__(layers=[])
        self.sequences = sequences

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Give each sequence its row's keys and values; attention reads them there."""
        for row, sequence in enumerate(self.sequences):
            if sequence is not None:
                sequence.append(layer_idx, key_states[row], value_states[row])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Rows differ in length: positions are always given."""
        return 0


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    rows: Rows | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers' layers call: query `(B, H, T, D)` to `(B, T, H, D)`."""
    layer = getattr(module, "layer_idx", None)
    if rows is None or layer is None or position_bias is not None:
        raise UsageError(
            f"{type(module).__name__} hands no cache rows down to its attention",
            rule="sequences of unlike length share a step only where attention is entered by the registry",
            remedy="the server computes this model's sequences one by one",
        )
    rule = Rule(
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    out = query.new_zeros((query.shape[0], query.shape[2], query.shape[1], value.shape[-1]))
    for row, sequence in enumerate(rows.sequences):
        if sequence is not None:
            keys, values = sequence.seen(layer)
            out[row] = attend_row(query[row], keys, values, rule).transpose(0, 1)
    return out, None


def attend_row(query: Tensor, keys: Tensor, values: Tensor, rule: Rule) -> Tensor:
    """`(H, T, D)` over the `(H_kv, L, D)` keys that end with the queries' own, a block of queries at a time."""
    before = keys.shape[1] - query.shape[1]
    blocks = []
    for start in range(0, query.shape[1], _QUERIES):
        block = query[:, start : start + _QUERIES]
        end = before + start + block.shape[1]
        blocks.append(_attend_block(block, keys[:, :end], values[:, :end], rule))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _attend_block(query: Tensor, keys: Tensor, values: Tensor, rule: Rule) -> Tensor:
    heads, length, width = query.shape
    groups, seen = keys.shape[0], keys.shape[1]
    # Heads that share a key head go through one product: (H_kv, G * T, D) @ (H_kv, D, L).
    scores = query.reshape(groups, -1, width) @ keys.transpose(1, 2) * rule.scale
    shares = shares_of(scores.view(heads, length, seen), rule)
    return (shares.reshape(groups, -1, seen) @ values).view(heads, length, values.shape[2])


AttentionInterface.register(NAME, attend_rows)


@contextmanager
def attention_by_rows(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model's attention reads each row's own keys; after it, it is as it was."""
    with attention_named(model, NAME):
        yield
