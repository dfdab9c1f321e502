"""The arithmetic that the demo shows is the loss that training minimises."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from burnish.evaluation.sharpening import GradedToken, graded_tokens, mean_surprise
from burnish.models.load import load_model
from burnish.types import Example


def test_the_mean_of_minus_ln_p_is_the_loss_of_plain_transformers(
    model_directory: Callable[..., Path],
) -> None:
    model = load_model(str(model_directory()), dtype=torch.float32).train()
    example = Example(0, 0, (1,), [5, 9, 40, 41, 7], [0.0, 0.0, 1.0, 1.0, 1.0])
    tokens = graded_tokens(model, example, list("abcde"))
    assert [token.text for token in tokens] == ["c", "d", "e"]
    labels = torch.tensor([[-100, -100, 40, 41, 7]])
    expected = model.eval()(torch.tensor([example.input_ids]), labels=labels).loss
    assert mean_surprise(tokens) == pytest.approx(float(expected), rel=1e-5)


def test_the_classic_example() -> None:
    tokens = [GradedToken("", p) for p in (0.05, 0.4, 0.1, 0.3)]
    assert f"{mean_surprise(tokens):.2f}" == "1.85"
    assert GradedToken("", 0.0).surprise == math.inf
