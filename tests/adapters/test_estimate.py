"""What `burnish plan` says is trained is what a method then trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.adapters.apply import apply_adapter, describe_trainable
from burnish.models.anatomy import anatomy_of
from burnish.models.load import load_model
from burnish.training.planning import estimate_trained
from tests.adapters.bench import recipe


@pytest.mark.parametrize("adapter", ["full", "lora", "pissa", "lora_xs", "bottleneck"])
def test_the_estimate_is_the_count(adapter: str, model_directory: Callable[[str], Path]) -> None:
    asked, place = recipe(adapter), str(model_directory("llama"))
    found = describe_trainable(apply_adapter(load_model(place), asked), asked)
    assert estimate_trained(asked, anatomy_of(place)) == found.parameters
