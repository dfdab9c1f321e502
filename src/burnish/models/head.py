"""The output head without its logits: which model's head is a plain matrix, and what it does around it.

A head is taken over only where it is understood, and that is not believed but tried: once per model, a few rows
are graded through `model(...)` and through what is thought to be its head. Where they differ, or where the head
is no plain matrix (an adapter sits on it), the model's own logits are graded: slower, and right. Rows that PEFT
trains in a frozen matrix, those of tokens the base never saw, are understood too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from burnish.losses.cross_entropy import Grading, LogitRule, Rows, chunks, grade_logits, head_loss

PROBED = 8
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-3}
"""How far logits may lie apart, as a share of the largest: other kernels, the same function, norms in fp32."""


@dataclass(frozen=True, slots=True)
class Head:
    """A plain matrix `(V, H)`, a bias, what the model does to the product, and the only rows that are trained."""

    weight: Tensor
    bias: Tensor | None
    rule: LogitRule
    rows: Rows | None = None

    def loss(self, hidden: Tensor, grading: Grading) -> tuple[Tensor, Tensor]:
        """What `head_loss` says of hidden rows `(R, H)`."""
        return head_loss(hidden, self.weight, self.bias, grading, self.rule, self.rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `(R, V)` in the compute dtype."""
        weight = self.weight if self.rows is None else self.rows.written_into(self.weight)
        logits = F.linear(hidden, weight, self.bias)
        if self.rule.scale != 1.0:
            logits = logits * self.rule.scale
        if self.rule.softcap is not None:
            logits = self.rule.softcap * torch.tanh(logits / self.rule.softcap)
        return logits

    def judge(self, hidden: Tensor, grading: Grading) -> tuple[Tensor, Tensor, Tensor]:
        """sum(weight * nll), -ln p of each target `(G,)`, and each row's first choice `(R,)`; no gradient.

        One chunk of logits at a time.
        """
        exact = torch.promote_types(hidden.dtype, torch.float32)
        sums, first = [hidden.new_zeros((), dtype=exact)], [hidden.new_zeros(0, dtype=torch.long)]
        nll = [hidden.new_zeros(0, dtype=exact)]
        weight = self.weight if self.rows is None else self.rows.laid_over(self.weight)
        for at, stop in chunks(hidden):
            logits = F.linear(hidden[at:stop], weight, self.bias)
            first.append(logits.argmax(-1))  # scaling and capping change no order
            summed, of_targets = grade_logits(logits, grading.rows(at, stop), self.rule, keep=False)
            sums.append(summed)
            nll.append(of_targets)
        return torch.stack(sums).sum(), grading.as_given(torch.cat(nll)), torch.cat(first)


def find_head(model: PreTrainedModel) -> Head | str:
    """The model's head, or why it is not understood. `model` is the transformers model inside any wrapper."""
    module = model.get_output_embeddings()
    if isinstance(module, TrainableTokensWrapper) and module.token_adapter.disable_adapters:
        module = module.token_adapter.base_layer  # the base, asked with its adapter off
    found = trained_rows(module)
    matrix = module if found is None else found[0]
    if type(matrix) is not nn.Linear:
        return f"its head is {type(module).__name__}, not a plain matrix"
    if model.base_model is model:
        return "it has no backbone apart from its head"
    rule = logit_rule(model.config.get_text_config())
    return Head(matrix.weight, matrix.bias, rule, None if found is None else found[1])


def trained_rows(module: Any) -> tuple[Any, Rows] | None:
    """The frozen table under an embedding or head of which PEFT trains some rows, and these; None for all else."""
    if not isinstance(module, TrainableTokensWrapper):
        return None
    layer = module.token_adapter
    names = [name for name in layer.active_adapters if name in layer.trainable_tokens_delta]
    if layer.merged or layer.disable_adapters or len(names) != 1 or layer.base_layer.weight.requires_grad:
        return None
    values = layer.trainable_tokens_delta[names[0]]
    return layer.base_layer, Rows(torch.tensor(layer.token_indices[names[0]], device=values.device), values)


def logit_rule(config: Any) -> LogitRule:
    """Cohere multiplies its logits by `logit_scale`, Granite divides by `logits_scaling`, Gemma 2 caps them."""
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    return LogitRule(scale, getattr(config, "final_logit_softcapping", None))


def probe(logits: Tensor, expected: Tensor) -> str | None:
    """Whether two ways to the same logits agree; None if so, else by how much they do not."""
    largest = float(expected.abs().max())
    error = float((logits - expected).abs().max()) / max(largest, 1e-6)
    if error <= TOLERANCE.get(expected.dtype, 3e-2):
        return None
    return f"logits through its matrix differ from the model's own by {error:.1e} of the largest"
