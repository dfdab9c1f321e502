"""The base inside a model with an adapter: the same model, its adapter switched off for a moment.

PEFT's own `disable_adapter` also sets, on its way back, which parameters take a gradient: the frozen halves of PiSSA
and LoRA-XS would be trained from then on. Here the switch of each layer is turned, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within the block the model is the base that it started from, rows of new tokens as they began included."""
    layers = [module for module in model.modules() if getattr(module, "_disable_adapters", None) is False]
    for layer in layers:
        layer._disable_adapters = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False  # type: ignore[assignment]
