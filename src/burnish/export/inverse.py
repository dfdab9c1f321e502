"""The way back from a merged export to its base: by arithmetic where rounding allows it, else by keeping the base.

merged = round(w + d)      back = round(merged - d)      how many elements of `back` are not w, bit for bit?
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from burnish.export.adapter_facts import AdapterFacts
from burnish.export.source import Source
from burnish.models.locate import locate, read_json

KEEP = "keep the base and the adapter (--to adapter)"


def way_back(adapter: AdapterFacts | None) -> dict[str, Any]:
    """Whether an export can be undone, where nothing was merged or no arithmetic undoes it."""
    if adapter is None:
        return {
            "exists": False,
            "why": "every weight was trained: what was there before is the base, elsewhere",
        }
    if adapter.config.get("use_dora"):
        why = f"DoRA divides by the norm of W + BA, which the merged weight does not give back: {KEEP}"
        return {"exists": False, "why": why}
    return {
        "exists": True,
        "how": "nothing was merged: without the adapter, the base is as it was, bit for bit",
    }


def inverse_of(model: PeftModel, source: Source, dtype: torch.dtype) -> dict[str, Any]:
    """How much of the base comes back, bit for bit, when the adapter's product is taken off the merged weights again.

    To be called before the merge: it needs both parts. The rows of new tokens were put in the place of others, and
    are not asked about.
    """
    adapter = source.adapter
    if adapter is None or adapter.config.get("use_dora"):
        return way_back(adapter)
    base = getattr(
        torch, str(read_json(locate(source.recipe.model) / "config.json").get("dtype") or "float32")
    )
    elements = lost = 0
    for weight, delta in low_rank_parts(model):
        back = unmerged((weight + delta).to(dtype), delta, base)
        elements += weight.numel()
        lost += int((back != weight.to(base)).sum())
    how = "subtract scale * B @ A from each merged weight in fp64, round to the base's dtype"
    said = {"exists": lost == 0, "how": how, "elements": elements, "not_returned": lost}
    return said if lost == 0 else {**said, "why": f"writing {str(dtype)[6:]} rounded them: {KEEP}"}


def unmerged(written: Tensor, delta: Tensor, base: torch.dtype) -> Tensor:
    """A merged weight without its adapter's part, in the base's dtype."""
    return (written.double() - delta.double()).to(base)


@torch.no_grad()
def low_rank_parts(model: PeftModel) -> Iterator[tuple[Tensor, Tensor]]:
    """The weight of each adapted layer, and what its adapter adds to it; both of the layer's own shape."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and "default" in layer.lora_A:
            # Fused experts are a bare parameter, which PEFT wraps otherwise than a layer.
            weight = layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight
            yield weight.detach(), layer.get_delta_weight("default").detach()
