"""A run over a base in 4 bits, made one model: its adapter folded into the original base, and what that changes.

    training saw      4-bit base + adapter        the adapter also learnt to make up for the 4 bits
    final/ holds      original base + adapter     `merge_into: base`
                      that, in 4 bits again       `merge_into: 4bit`

Neither is the model that was trained. How far each is from it, on rows of the data, is in merge.json and the summary.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from burnish.adapters.save import merged
from burnish.models.forward import unwrapped
from burnish.models.generate import evaluating
from burnish.models.load import add_token_rows, load_model
from burnish.models.quantized import load_quantized
from burnish.models.rope import scale_positions
from burnish.recipe.choices import MergeInto
from burnish.training.directory import RunDirectory
from burnish.training.session import Session
from burnish.types import Example

PROBES = 8
"""Rows that both models are asked about: held-out ones where there are any."""

PROBED_TOKENS = 256
PROBED_LOGITS = 64
"""Of each, so many tokens are fed at most, and the logits of so many graded ones compared."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How a merged model differs from the one that was trained, over `positions` of `probes` rows.

    `kl` is KL(trained || merged) in nats a token; `same_choice` the share of positions with the same likeliest token.
    """

    into: str
    probes: int
    positions: int
    max_logit_difference: float
    mean_logit_difference: float
    mean_kl: float
    max_kl: float
    same_choice: float

    def __str__(self) -> str:
        return (
            f"merged into {self.into}: logits differ by {self.mean_logit_difference:.2g} in the mean, "
            f"{self.max_logit_difference:.2g} at most; KL {self.mean_kl:.2g} nats a token; the same first choice at "
            f"{self.same_choice:.1%} of {self.positions} positions"
        )


def merge_quantized(session: Session, run: RunDirectory) -> tuple[PreTrainedModel, list[Drift]]:
    """The model for `final/`, and its drift, of a session whose adapter is saved in the run; consumes its model."""
    dtype: torch.dtype = getattr(torch, session.recipe.dtype.value)
    probes = probe_rows(session)
    trained = probe_logits(session.model, probes)
    base = load_model(session.recipe.model, dtype=dtype, device=torch.device("cpu"))
    base = scale_positions(base, session.recipe.rope_scaling)
    tokenizer = session.tokenizer
    add_token_rows(base, len(tokenizer), tokenizer.new_ids, like=tokenizer.like)
    model = merged(PeftModel.from_pretrained(base, run.adapter))
    drifts = [
        drift_of(trained, probe_logits(model, probes), f"the original base in {dtype}".replace("torch.", ""))
    ]
    if session.recipe.merge_into == MergeInto.FOUR_BITS:
        model = _in_four_bits(model, run.path / ".merged", dtype, unwrapped(session.model).device)
        drifts.append(drift_of(trained, probe_logits(model, probes), "4 bits"))
    return model, drifts


def _in_four_bits(
    model: PreTrainedModel, folder: Path, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The same model with its linear layers in 4 bits; it goes by way of a directory, as any base does."""
    try:
        model.save_pretrained(folder)
        # Norms as they were: stock transformers, which will load this, has none that take two dtypes.
        return load_quantized(str(folder), compute=dtype, device=device, exact_norms=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def probe_rows(session: Session) -> list[Example]:
    """The first few held-out examples; training rows where none are held out."""
    rows = session.data.held_out[:PROBES] or session.data.train[:PROBES]
    return [view for views in rows for view in views][:PROBES]


def probe_logits(model: nn.Module, probes: Sequence[Example]) -> list[Tensor]:
    """fp32 logits of each probe's first graded tokens, on the CPU."""
    device = unwrapped(model).device
    found = []
    with evaluating(model):
        for probe in probes:
            ids = probe.input_ids[:PROBED_TOKENS]
            at = [place - 1 for place in range(1, len(ids)) if probe.weights[place]][:PROBED_LOGITS]
            logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, at]
            found.append(logits.float().cpu())
    return found


def drift_of(trained: Sequence[Tensor], other: Sequence[Tensor], into: str) -> Drift:
    """Compare two models' logits on the same probes."""
    one, two = torch.cat(list(trained)), torch.cat(list(other))
    apart = (one - two).abs()
    p, q = one.double().log_softmax(-1), two.double().log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    return Drift(
        into=into,
        probes=len(trained),
        positions=len(one),
        max_logit_difference=float(apart.max()),
        mean_logit_difference=float(apart.mean()),
        mean_kl=float(kl.mean()),
        max_kl=float(kl.max()),
        same_choice=float((one.argmax(-1) == two.argmax(-1)).double().mean()),
    )


def as_json(drifts: Sequence[Drift]) -> list[dict[str, Any]]:
    """What merge.json holds."""
    return [asdict(drift) for drift in drifts]
