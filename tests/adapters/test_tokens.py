"""Rows that a base never trained are told from rows that it did."""

from __future__ import annotations

import torch

from burnish.adapters.tokens import untrained_tokens
from tests.adapters.bench import base


def test_rows_all_but_zero_and_twins_are_found_and_others_are_not() -> None:
    model = base("llama-padded")
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[5] *= 1e-5
        table[7] = table[9]
        table[11, 0] = table[12, 0]  # one number alike is no twin
        table[13] *= 0.05
    assert untrained_tokens(model, [5, 7, 9, 11, 12, 13, 14, 99]) == {5: True, 7: False, 9: False}
    assert untrained_tokens(model, []) == {}
