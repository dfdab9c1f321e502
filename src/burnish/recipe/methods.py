"""The methods of training as values: a row says all that tells a method from the others. Imports no torch.

    METHODS[Adapter.DORA]      injects LoRA by PEFT with use_dora, over a base in full precision; merges into it
    METHODS[Adapter.QDORA]     the same row over a base in 4 bits

Code asks a row for what it needs (`method.quantised`), and never which method it has in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from burnish.recipe.choices import Adapter


class Injection(StrEnum):
    """What is put beside the weights of the base."""

    NOTHING = "nothing"
    LOW_RANK = "low-rank"  # PEFT's LoRA layers: two trained matrices
    PRINCIPAL = "principal"  # the same, which start as the base's leading singular parts and count from there
    CORE = "core"  # ours: the base's own singular vectors, frozen, around one trained r x r matrix
    BOTTLENECK = "bottleneck"  # ours: down, activation, up, behind each block of a layer


@dataclass(frozen=True, slots=True)
class Method:
    """One way to choose the weights that move.

    `learning_rate` is the default from 100M parameters up, `usual_rates` what published runs there settle on, and
    `highest_rate` the default of the tiniest models. `alpha` gives `lora_alpha` from the rank. `options` go to PEFT's
    LoraConfig as they are. `experts`: whether it has a form for the fused weights of experts. A method that does not
    merge leaves `final/` as the base with its adapter beside it.
    """

    injects: Injection
    learning_rate: float
    usual_rates: tuple[float, float]
    highest_rate: float = 4e-3
    alpha: Callable[[int], float] = lambda rank: 2.0 * rank
    options: Mapping[str, Any] = field(default_factory=dict)
    experts: bool = True
    quantised: bool = False
    merges: bool = True

    @property
    def can_be_off(self) -> bool:
        """Whether the model is the base again while the adapter is off: PEFT's layers have a switch."""
        return self.has_rank

    @property
    def has_rank(self) -> bool:
        """Whether the `lora_*` keys mean anything to it."""
        return self.injects in (Injection.LOW_RANK, Injection.PRINCIPAL, Injection.CORE)

    def scale(self, rank: int, alpha: float) -> float:
        """How often the low-rank product counts: alpha / r, and alpha / sqrt(r) where the rank is to be stable."""
        return float(alpha / (rank**0.5 if self.options.get("use_rslora") else rank))


_RATES: dict[str, Any] = {
    "learning_rate": 2e-4,
    "usual_rates": (1e-4, 5e-4),
}

METHODS: Mapping[Adapter, Method] = {
    Adapter.FULL: Method(Injection.NOTHING, learning_rate=2e-5, usual_rates=(1e-5, 5e-5)),
    Adapter.LORA: Method(Injection.LOW_RANK, **_RATES),
    Adapter.DORA: Method(Injection.LOW_RANK, **_RATES, options={"use_dora": True}, experts=False),
    # alpha does not follow the rank: that is what alpha / sqrt(r) is for. 8 is LoRA's scale of 2 at rank 16.
    Adapter.RSLORA: Method(
        Injection.LOW_RANK, **_RATES, options={"use_rslora": True}, alpha=lambda rank: 8.0
    ),
    # Its matrices start as the base's largest singular parts: scale 1, as its authors have it.
    Adapter.PISSA: Method(Injection.PRINCIPAL, **_RATES, alpha=float, experts=False),
    Adapter.LORA_XS: Method(
        Injection.CORE, learning_rate=1e-3, usual_rates=(5e-4, 5e-3), highest_rate=2e-2, alpha=float
    ),
    Adapter.QLORA: Method(Injection.LOW_RANK, **_RATES, quantised=True),
    Adapter.QDORA: Method(
        Injection.LOW_RANK, **_RATES, options={"use_dora": True}, experts=False, quantised=True
    ),
    Adapter.BOTTLENECK: Method(
        Injection.BOTTLENECK, learning_rate=3e-4, usual_rates=(1e-4, 1e-3), merges=False
    ),
}
