"""From a pack to the loss of its targets, or to the logits that they need, and to nothing else.

A `Forward` is chosen once per model; each choice has its reason in words:

    flat         the whole pack through our own forward (`models.flat`), for Llama-shaped families
    modules      the whole pack through transformers' modules, attention by the reach rule
    one by one   models that cannot follow the rule (recurrent layers, older attention classes): slower, and right

and, apart from that, whether the head is a matrix we understand (`models.head`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from transformers import PreTrainedModel

from burnish.data.pack import Pack
from burnish.data.shard import Shard, beginning
from burnish.losses.cross_entropy import Grading, chunks, token_nll, weighted_sum
from burnish.models.attention import NAME, packed_attention
from burnish.models.flat import flat_hidden, why_not_flat
from burnish.models.generate import evaluating
from burnish.models.head import PROBED, Head, find_head, probe
from burnish.models.reach import Layout
from burnish.models.shard import is_sharded, through

CHECKED = 256
"""Tokens of a sharded pack on which the ways are compared, by each rank for itself."""

# Layers that carry a state from token to token would carry it across documents.
STATEFUL = ("mamba", "linear_attention", "recurrent", "conv", "rwkv", "ssm", "delta", "xlstm", "minimax")


def why_unpacked(model: PreTrainedModel) -> str | None:
    """Why this model's documents must be computed one by one, in words; None if it takes packs."""
    config = model.config.get_text_config()
    if not model._can_set_attn_implementation():
        return f"{type(model).__name__} does not use transformers' attention registry"
    kinds = [str(kind) for kind in getattr(config, "layer_types", None) or []]
    for word in STATEFUL:
        if word in config.model_type or any(word in kind for kind in kinds):
            return f"{type(model).__name__} has layers ({word}) that carry state across documents"
    if any("chunked" in kind for kind in kinds):
        return f"{type(model).__name__} has chunked attention layers"
    return None


@dataclass(slots=True)
class Forward:
    """How packs go through one model. `why_no_head` and `why_not_flat` say what was not taken, and why.

    `model` may be wrapped by PEFT; it is called as it is. `backbone`, where set, is called in its place for
    hidden states: a compiled one, for instance. `group` are the ranks that have a pack's shards between them.
    """

    model: nn.Module
    packed: bool
    backbone: Any = None
    flat: bool = False
    head: Head | None = None
    why_no_head: str | None = None
    why_not_flat: str | None = None
    group: ProcessGroup | None = None
    _checked: bool = field(default=False)

    @property
    def inner(self) -> PreTrainedModel:
        """The transformers model inside any wrapper."""
        return unwrapped(self.model)

    @property
    def holds_all_logits(self) -> bool:
        """Whether a pack's logits are made all at once, for its head is not a plain matrix."""
        return not self.packed or isinstance(find_head(self.inner), str)

    @property
    def device(self) -> torch.device:
        """Where the model is computed; its sharded weights may rest elsewhere."""
        mesh = getattr(next(self.inner.parameters()), "device_mesh", None)
        found: torch.device = self.inner.device if mesh is None else torch.device(mesh.device_type)
        return found

    def loss(self, pack: Pack, *, label_smoothing: float = 0.0, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """sum(weight * nll), which whoever knows the whole batch divides; and -ln p of each target, no gradient."""
        self._check(pack)
        if self.head is None:
            return _plain_loss(self.logits(pack), pack, label_smoothing, z_loss)
        grading = _grading(pack, self.device, label_smoothing=label_smoothing, z_loss=z_loss)
        made: tuple[Tensor, Tensor] = self._headed(pack, lambda head, hidden: head.loss(hidden, grading))
        return made

    def logits(self, pack: Pack) -> Tensor:
        """Logits `(R, V)` at `pack.rows_kept`."""
        if not self.packed:
            return _one_by_one(self.model, pack)
        self._check(pack)
        if self.head is not None:
            logits: Tensor = self._headed(pack, lambda head, hidden: head.logits(hidden))
            return logits
        return self._model_logits(pack)

    def ready(self, pack: Pack) -> bool:
        """Whether this forward's head is known and may be asked apart; the first pack decides."""
        self._check(pack)
        return self.packed and self.head is not None

    def blocks(self, pack: Pack) -> Iterator[tuple[int, Tensor]]:
        """Logits `(r, V)` of `pack.rows_kept` from a row's number on, a chunk of rows at a time."""
        if not self.ready(pack) or self.head is None:
            yield 0, self.logits(pack)
            return
        hidden = self.hidden(pack)
        for first, stop in chunks(hidden):
            yield first, self.head.logits(hidden[first:stop])

    def judge(self, pack: Pack) -> tuple[Tensor, Tensor, Tensor]:
        """sum(weight * nll), -ln p of each target `(G,)`, and whether it is the first choice `(G,)`.

        A chunk of logits at a time, no gradient.
        """
        self._check(pack)
        if not self.packed or self.head is None:
            logits = self.logits(pack)
            summed, nll = _plain_loss(logits, pack, 0.0, 0.0)
            first = logits.argmax(-1)
        else:
            grading = _grading(pack, self.device)
            summed, nll, first = self._headed(pack, lambda head, hidden: head.judge(hidden, grading))
        chosen = first[torch.from_numpy(pack.row_of).to(first.device)]
        return summed, nll, chosen == torch.from_numpy(pack.targets).to(first.device)

    def _headed(self, pack: Pack, use: Callable[[Head, Tensor], Any]) -> Any:
        """What is made of hidden states with the head; of sharded weights both are there within the door only."""

        def within() -> Any:
            head = find_head(self.inner) if is_sharded(self.inner) else self.head
            assert isinstance(head, Head)
            return use(head, self.hidden(pack))

        return through(self.inner, within)

    def hidden(self, pack: Pack) -> Tensor:
        """Hidden states `(R, H)` that the head reads, at `pack.rows_kept`."""
        rows = torch.from_numpy(pack.rows_kept).to(self.device)
        given = self._inputs(pack)
        if self.flat:
            return flat_hidden(
                self.inner, given["input_ids"][0], given["position_ids"][0], given["pack_layout"], rows
            )
        states = (self.backbone or self.inner.base_model)(**given).last_hidden_state[0]
        return states.index_select(0, rows)  # type: ignore[no-any-return]

    def _model_logits(self, pack: Pack) -> Tensor:
        rows = torch.from_numpy(pack.rows_kept).to(self.device)
        logits: Tensor = self.model(**self._inputs(pack), logits_to_keep=rows).logits
        return logits[0]

    def _inputs(self, pack: Pack) -> dict[str, Any]:
        if self.inner.config._attn_implementation != NAME:
            raise RuntimeError("a pack was fed outside `pack_attention`: its documents would see each other")
        return {
            "input_ids": torch.from_numpy(pack.input_ids)[None].to(self.device),
            "position_ids": torch.from_numpy(pack.position_ids)[None].to(self.device),
            "pack_layout": Layout.of(pack, self.device, self.group),
            "use_cache": False,
        }

    def _check(self, pack: Pack) -> None:
        """Before the first pack: do the ways chosen lead to the model's own logits, on a few rows of it?"""
        if isinstance(pack, Shard):
            pack = beginning(pack.whole, CHECKED)  # alone, and alike on every rank: all decide the same
        if self._checked or not len(pack.rows_kept):
            return
        self._checked = True
        found = find_head(self.inner) if self.packed else "documents are computed one by one"
        if isinstance(found, str):
            self.flat, self.why_no_head = False, found
            return
        few = first_rows(pack, PROBED)
        with evaluating(self.model):
            expected = self._model_logits(few)
            self.head = found
            if self.flat:
                self.why_not_flat = probe(self.logits(few), expected)
                self.flat = self.why_not_flat is None
            self.why_no_head = None if self.flat else probe(self.logits(few), expected)
        self.head = found if self.why_no_head is None else None


def open_forward(model: nn.Module, *, packed: bool, compiled: bool = False, flat: bool = True) -> Forward:
    """The forward of a model; `compiled` compiles transformers' backbone, `flat=False` leaves our own forward out."""
    if not packed:
        called: Any = torch.compile(model, dynamic=True) if compiled else model
        return Forward(called, packed=False)
    inner = unwrapped(model)
    backbone = torch.compile(inner.base_model, dynamic=True) if compiled else None
    why = "it is compiled" if compiled else "not wanted" if not flat else why_not_flat(inner)
    return Forward(model, packed, backbone=backbone, flat=why is None, why_not_flat=why)


def first_rows(pack: Pack, count: int) -> Pack:
    """The pack's first segment that has graded rows, by itself, with at most `count` rows of logits.

    A segment with a parent is not taken alone; where only such are graded the whole pack is returned.
    """
    for segment in pack.segments:
        kept = pack.rows_kept[(pack.rows_kept >= segment.start) & (pack.rows_kept < segment.end)][:count]
        if segment.parent >= 0 or not len(kept):
            continue
        tokens = slice(segment.start, int(kept[-1]) + 1)
        first = int(pack.rows_kept.searchsorted(kept[0]))
        mine = (pack.row_of >= first) & (pack.row_of < first + len(kept))
        length = tokens.stop - tokens.start
        return Pack(
            input_ids=pack.input_ids[tokens],
            position_ids=pack.position_ids[tokens],
            reach=pack.reach[tokens].clip(max=tokens.stop) - tokens.start,
            segments=(type(segment)(0, length, -1),),
            rows_kept=kept - tokens.start,
            row_of=pack.row_of[mine] - first,
            targets=pack.targets[mine],
            weights=pack.weights[mine],
            sources=pack.sources[mine],
            rows=pack.rows,
            leaves=(0,) * len(pack.leaves),
        )
    return pack


@contextmanager
def pack_attention(model: nn.Module, *, packed: bool) -> Iterator[None]:
    """The block in which packs go through `model`, forward *and* backward.

    Backward too, for gradient checkpointing computes attention again there.
    """
    with packed_attention(unwrapped(model)) if packed else nullcontext():
        yield


def graded_nll(model: nn.Module, pack: Pack, *, packed: bool) -> Tensor:
    """-ln p of each target of a pack, fp32 `(G,)`, in the pack's order, with a gradient: through all logits."""
    forward = Forward(model, packed)
    logits = forward._model_logits(pack) if packed else _one_by_one(model, pack)
    return token_losses(logits, pack)


def _grading(pack: Pack, device: torch.device, **extra: float) -> Grading:
    return Grading.of(
        pack.row_of, pack.targets, pack.weights, num_rows=len(pack.rows_kept), device=device, **extra
    )


def token_losses(logits: Tensor, pack: Pack) -> Tensor:
    """-ln p of each target `(G,)` from the logits `(R, V)` of a pack, with a gradient."""
    targets = torch.from_numpy(pack.targets).to(logits.device)
    if len(pack.row_of) != len(pack.rows_kept) or (pack.row_of[1:] < pack.row_of[:-1]).any():
        logits = logits.index_select(0, torch.from_numpy(pack.row_of).to(logits.device))
    return token_nll(logits, targets)


def _plain_loss(logits: Tensor, pack: Pack, label_smoothing: float, z_loss: float) -> tuple[Tensor, Tensor]:
    """The loss from logits `(R, V)`, where the head is the model's own affair."""
    nll = token_losses(logits, pack)
    weights = torch.from_numpy(pack.weights).to(nll)
    value = nll
    if label_smoothing or z_loss:
        rows = torch.from_numpy(pack.row_of).to(logits.device)
        exact = logits.to(nll.dtype)
        lse, mean = exact.logsumexp(-1)[rows], exact.mean(-1)[rows]
        value = (1 - label_smoothing) * nll + label_smoothing * (lse - mean) + z_loss * lse**2
    return weighted_sum(value, weights), nll.detach()


def _one_by_one(model: nn.Module, pack: Pack) -> Tensor:
    pieces = []
    ids = torch.from_numpy(pack.input_ids).to(unwrapped(model).device)
    rows = torch.from_numpy(pack.rows_kept).to(ids.device)
    keeps = "logits_to_keep" in inspect.signature(unwrapped(model).forward).parameters
    for start, stop in pack.bounds:
        local = rows[(rows >= start) & (rows < stop)] - start
        extra = {"logits_to_keep": local} if keeps else {}
        logits = model(input_ids=ids[None, start:stop], use_cache=False, **extra).logits[0]
        pieces.append(logits if keeps else logits[local])
    return torch.cat(pieces)


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside PEFT's or torch.compile's wrapper."""
    inner: Any = getattr(model, "_orig_mod", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner
