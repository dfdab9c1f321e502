"""Rows of the vocabulary's tables: which were never trained, and which are to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

FAINT = 1e-3
"""A row whose largest number is below this share of the median row's was never trained (Llama 3's reserved tokens)."""

SMALL_TABLE = 2**26
"""Of larger tables only every n-th row is looked at for the median, so that it takes no time."""


@torch.no_grad()
def untrained_tokens(model: PreTrainedModel, tokens: Iterable[int]) -> dict[int, bool]:
    """Those of `tokens` whose embedding row the base never trained, and whether it is all but zero; else it is a twin.

    Llama 3's base has rows of zeros for <|eot_id|> and its kin; a model whose table was made larger and not trained
    after has many rows alike; of two twins one may well be trained, so neither is started anew. It is asked before new
    tokens get rows, some of which are copies. A row left at its random start cannot be told from one that was trained.
    """
    table = model.get_input_embeddings().weight
    asked = sorted(token for token in set(tokens) if token < len(table))
    if not asked or not table.is_floating_point():
        return {}
    every = max(1, table.numel() // SMALL_TABLE)
    usual = table[::every].abs().amax(dim=1).float().median()
    rows = table[asked]
    faint = rows.abs().amax(dim=1).float() < FAINT * usual
    return {
        token: bool(is_faint)
        for token, row, is_faint in zip(asked, rows, faint, strict=True)
        if is_faint or _has_twin(table, row)
    }


def _has_twin(table: Tensor, row: Tensor) -> bool:
    """Whether a row occurs more than once; a column is compared first, for tables are large."""
    alike = (table[:, 0] == row[0]).nonzero().squeeze(1)
    return bool(len(alike) > 1 and (table[alike] == row).all(dim=1).sum() > 1)


def token_rows(model: PreTrainedModel, tokens: Sequence[int]) -> dict[str, list[int]]:
    """The embedding (and the head, where it is a matrix of its own) by module name, with the rows to train.

    A head with a bias is left out: PEFT's row layer forgets the bias. See `heads_to_train_whole`.
    """
    table, head = model.get_input_embeddings(), own_head(model)
    return {
        name: list(tokens)
        for name, module in model.named_modules()
        if module is table or (module is head and getattr(head, "bias", None) is None)
    }


def heads_to_train_whole(model: PreTrainedModel) -> list[str]:
    """The head by name, where rows of it are to be trained and it has a bias."""
    head = own_head(model)
    if head is None or getattr(head, "bias", None) is None:
        return []
    return [name for name, module in model.named_modules() if module is head]


def own_head(model: PreTrainedModel) -> nn.Module | None:
    """The output head, where it is not the embedding's own matrix."""
    head: nn.Module | None = model.get_output_embeddings()
    if head is None or head.weight is model.get_input_embeddings().weight:
        return None
    return head
