"""A session: everything one run needs in memory, put together in one place, in the order in which it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from burnish.adapters.apply import Trainable, apply_adapter, describe_trainable
from burnish.adapters.audit import Audit
from burnish.adapters.tokens import untrained_tokens
from burnish.data.pack import Pack, pack_all
from burnish.data.plan import Course
from burnish.data.prepare import Prepared, encode_rows
from burnish.data.replay import further_replay, share_at
from burnish.data.rows import read_rows
from burnish.data.store import Array
from burnish.data.workers import Workers
from burnish.errors import UsageError
from burnish.models.anatomy import Anatomy, anatomy_of
from burnish.models.anchor import Anchor
from burnish.models.dealt import load_to_deal
from burnish.models.forward import Forward, open_forward, unwrapped, why_unpacked
from burnish.models.generate import num_positions
from burnish.models.load import add_token_rows, default_device, load_model, start_model, vocabulary_tables
from burnish.models.quantized import Footprint, exact_parameters, footprint, is_quantized, load_quantized
from burnish.models.rope import has_learned_positions, scale_positions, why_no_context
from burnish.models.shard import shard
from burnish.models.tokenizer import ChatTokenizer
from burnish.optim.build import Optimizer
from burnish.optim.masters import Masters
from burnish.optim.schedule import Relay
from burnish.parallel.mesh import Mesh
from burnish.parallel.ranks import ALONE, Ranks
from burnish.parallel.runtime import (
    device_memory,
    give_back_freed_memory,
    give_back_large_blocks,
    resident_bytes,
)
from burnish.recipe.methods import METHODS
from burnish.recipe.schema import Recipe
from burnish.training.ahead import Ahead
from burnish.training.certificate import recipe_tokenizer
from burnish.training.forecast import Memory
from burnish.training.forgetting import Guard
from burnish.training.holding import rank_memory, with_checkpointing
from burnish.training.sharpening import Sharpening
from burnish.training.stages import Stage, stage_of
from burnish.types import Example

TOKENS_PER_PASS = {"cpu": 2048, "cuda": 16_384}
"""Tokens of a forward pass where `micro_batch_size` is `auto`: enough to keep a device busy, and few activations."""
MORE_FOR_PREFIXES = 1.25
"""By how much a pass may be larger where fewer passes repeat fewer shared beginnings."""
WORTH_IT = 0.95
"""The larger passes are taken if they compute less than this share of the tokens."""
ROUND_TO = {"cpu": 32, "cuda": 1}
"""A pass is filled up to a multiple of so many tokens: a CPU's library compiles each new length, and keeps it."""
RECOMPUTES = "activations are recomputed: kept, a step would need more memory than this device has"
LOGITS_PER_PASS = 2**27
"""Where a model's own logits are graded (`models.head`), how many one pass may hold: 512 MiB in fp32."""


@dataclass(slots=True)
class TrainState:
    """What changes while training and resuming must bring back, next to weights and optimiser.

    `owes_evaluation` says that the weights of this step are still to be measured, as before the first update.
    `replay_raises` are pairs of the step from which on and the share of replay; `points` are those of
    `training.forgetting.Point` among which the guard chooses.
    """

    step: int = 0
    tokens: int = 0
    graded_tokens: int = 0
    train_loss: float | None = None
    eval_loss: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    evaluations_without_better: int = 0
    stopped_by: str | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0
    owes_evaluation: bool = True
    replay_raises: list[list[float]] = field(default_factory=list)
    points: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """One run in memory."""

    recipe: Recipe
    tokenizer: ChatTokenizer
    data: Prepared
    stages: tuple[Stage, ...]
    plan: Course
    schedule: Relay
    model: PreTrainedModel | PeftModel
    forward: Forward
    masters: Masters
    optimizer: Optimizer
    trainable: Trainable
    held_out: list[Pack]
    why_unpacked: str | None
    expected: Memory
    footprint: Footprint | None = None
    untrained: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    ranks: Ranks = ALONE
    audit: Audit | None = None
    audit_told: bool = False
    resumed_from: int = 0
    anchor: Anchor | None = None
    guard: Guard | None = None
    sharpening: Sharpening | None = None
    state: TrainState = field(default_factory=TrainState)
    ahead: Ahead[list[Pack]] = field(init=False)
    _graded: Array | None = None

    def __post_init__(self) -> None:
        self.ahead = Ahead(self._packs_of, self.plan.num_steps)

    def _packs_of(self, step: int) -> list[Pack]:
        return self.packs([example for row in self.rows_of(step) for example in self.data.train[row]])

    def objective(self, pack: Pack) -> tuple[Tensor, Tensor, Tensor]:
        """sum(weight * nll) of a pack, -ln p of each target, and what the gradient is of: with an anchor, more."""
        if self.anchor is None:
            part, nll = self.forward.loss(pack)
            return part, nll, part
        part, nll, pull = self.anchor.loss(pack)
        return part, nll, part + pull

    def rows_of(self, step: int) -> list[int]:
        """The rows of an update (from 0): the plan's, and more replay where the guard raised its share."""
        rows = self.plan.rows_of(step)
        share = share_at(self.state.replay_raises, step)
        if share is None:
            return rows
        if self._graded is None:
            self._graded = self.data.train.row_graded
        return rows + further_replay(self.plan, self._graded, step, share=share, seed=self.recipe.seed)

    def packs(self, examples: Sequence[Example]) -> list[Pack]:
        """Examples laid out as micro-batches."""
        return _lay_out_for(self.forward, examples, self.recipe, vocab_size=len(self.tokenizer))


def lay_out(
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    vocab_size: int,
    packed: bool,
    device: str = "cpu",
    all_logits: bool = False,
) -> list[Pack]:
    """Examples as packs whose size follows from `micro_batch_size`, or from the device where that is `auto`.

    The largest comes first: what does not fit is found out before work is done, and sums of gradients, which the later
    ones are added to, are not held beside its activations. `all_logits` says that a pack's logits are made at once,
    which a large vocabulary makes large.
    """
    automatic = TOKENS_PER_PASS.get(device, 2048)
    if all_logits:
        automatic = min(automatic, max(1024, LOGITS_PER_PASS // vocab_size))
    if not packed:
        return pack_all(examples, max_tokens=automatic, max_rows=1)
    rounded = ROUND_TO.get(device, 1)
    if recipe.context_parallel > 1:  # so that each of the ranks that share a pack has tokens of it
        rounded = max(rounded, 2 * recipe.context_parallel)
    lay = partial(pack_all, examples, share_prefixes=recipe.share_prefixes, round_to=rounded)
    if recipe.micro_batch_size == "auto":
        packs = lay(max_tokens=automatic)
        if len(packs) > 1 and any(pack.is_tree for pack in packs):
            larger = lay(max_tokens=int(automatic * MORE_FOR_PREFIXES))
            packs = larger if _tokens(larger) < WORTH_IT * _tokens(packs) else packs
    else:
        longest = max(len(example) for example in examples)
        packs = lay(max_tokens=longest * recipe.micro_batch_size, max_rows=recipe.micro_batch_size)
    return sorted(packs, key=len, reverse=True)


def _tokens(packs: Sequence[Pack]) -> int:
    return sum(len(pack) for pack in packs)


def _largest_pack(recipe: Recipe, longest: int, device: str) -> int:
    """The most tokens of one pass, as `lay_out` makes them."""
    if recipe.micro_batch_size == "auto":
        most = TOKENS_PER_PASS.get(device, 2048)
        return max(longest, int(most * MORE_FOR_PREFIXES) if recipe.share_prefixes else most)
    return longest * recipe.micro_batch_size


def _lay_out_for(
    forward: Forward, examples: Sequence[Example], recipe: Recipe, *, vocab_size: int
) -> list[Pack]:
    return lay_out(
        examples,
        recipe,
        vocab_size=vocab_size,
        packed=forward.packed,
        device=forward.device.type,
        all_logits=forward.holds_all_logits,
    )


def encode_recipe(recipe: Recipe) -> tuple[ChatTokenizer, Prepared]:
    """Read and encode every row of a recipe, in memory, as training would; nothing is kept or proved."""
    rows = read_rows(recipe)
    tokenizer = recipe_tokenizer(recipe, chat=rows.has_conversations)
    with Workers(tokenizer.spec, num_rows=rows.num_kept) as workers:
        data = encode_rows(rows, workers.encode_all, recipe)
    tokenizer.take_in(workers.stop_ids, workers.counts)
    return tokenizer, data


def open_session(
    recipe: Recipe,
    tokenizer: ChatTokenizer,
    data: Prepared,
    *,
    stages: Sequence[Stage] = (),
    from_scratch: bool = False,
    ranks: Ranks = ALONE,
    on_host: bool = False,
) -> Session:
    """Load the model, make its weights trainable by the recipe's method, plan the updates.

    Of a run in `stages`, `data` holds the rows of all of them, end to end. `on_host` leaves a GPU alone.
    """
    stages = stages or [stage_of(recipe, data.train)]
    resident = 0 if default_device().type == "cuda" else resident_bytes()
    torch.manual_seed(recipe.seed)  # adapters and new models start from random weights
    # What is to be dealt to ranks stays mapped from its files until each rank takes its part.
    device = torch.device("cpu") if ranks.mesh.is_sharded or on_host else None
    base = (
        start_model(recipe.model) if from_scratch else _load_base(recipe, device, dealt=ranks.mesh.is_sharded)
    )
    base = scale_positions(base, recipe.rope_scaling, max_length=recipe.max_length)
    beyond = _past_positions(base, int(data.train.lengths.max()))
    weak = {} if from_scratch else untrained_tokens(base, set(tokenizer.control_ids) - {*tokenizer.new_ids})
    add_token_rows(base, len(tokenizer), tokenizer.new_ids, like=tokenizer.like)
    weights = footprint(base) if is_quantized(base) else None
    untrained = _wake_tokens(base, tokenizer, weak)
    why = why_unpacked(base) if recipe.packing else "packing: false"
    if ranks.mesh.context > 1:
        _require_context(base, why, recipe)
    tables = vocabulary_tables(base)
    model = apply_adapter(base, recipe, new_tokens=[*tokenizer.new_ids, *untrained])
    compute = getattr(torch, recipe.dtype.value)
    embeddings = _embedding_names(model, tables)
    if ranks.mesh.is_sharded:
        give_back_large_blocks()
        shard(
            unwrapped(model),
            ranks.holders,
            compute=compute,
            offload=recipe.cpu_offload,
            between=give_back_freed_memory,
        )
    masters = Masters(model, compute=compute, exact=exact_parameters(model))
    trainable = describe_trainable(model, recipe)
    anatomy = anatomy_of(recipe.model)
    most = _largest_pack(recipe, int(data.train.lengths.max()), model.device.type)
    room = ranks.least(device_memory())  # ranks that decide apart would gather at other times
    decided = with_checkpointing(
        recipe, anatomy, ranks.mesh, trained=trainable.parameters, pack_tokens=most, room=room
    )
    recomputes = () if decided == recipe or not decided.gradient_checkpointing else (RECOMPUTES,)
    recipe = decided
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers checkpoints a layer in training mode only, and loads every model in evaluation mode.
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                module.training = True
    held_out = list(data.held_out.views())
    forward = open_forward(model, packed=why is None, compiled=recipe.compile)
    forward.group = ranks.context_group
    return Session(
        recipe=recipe,
        tokenizer=tokenizer,
        data=data,
        stages=tuple(stages),
        plan=Course(tuple(stage.plan for stage in stages)),
        schedule=Relay(tuple(stage.schedule for stage in stages)),
        model=model,
        forward=forward,
        anchor=_anchor(recipe, forward),
        masters=masters,
        optimizer=Optimizer(
            masters.parameters,
            name=recipe.optimizer.value,
            weight_decay=recipe.weight_decay,
            embeddings=embeddings,
            faster=frozenset(name for name in masters.parameters if ".lora_B." in name),
            ratio=recipe.lora_plus_ratio,
        ),
        trainable=trainable,
        expected=_expected(
            recipe, anatomy, ranks.mesh, trained=trainable.parameters, pack_tokens=most, process=resident
        ),
        held_out=_lay_out_for(forward, held_out, recipe, vocab_size=len(tokenizer)) if held_out else [],
        why_unpacked=why,
        footprint=weights,
        untrained=untrained,
        notes=(*_token_notes(tokenizer, untrained), *recomputes, *beyond),
        ranks=ranks,
    )


def _expected(
    recipe: Recipe, anatomy: Anatomy, mesh: Mesh, *, trained: int, pack_tokens: int, process: int
) -> Memory:
    """What this rank is going to hold on its device; where that is the host, nothing leaves it."""
    if recipe.cpu_offload and default_device().type == "cpu":
        recipe = recipe.model_copy(update={"cpu_offload": False})
    held, _ = rank_memory(
        recipe, anatomy, mesh, trained=trained, pack_tokens=pack_tokens, process=float(process)
    )
    return held


def _wake_tokens(
    base: PreTrainedModel, tokenizer: ChatTokenizer, weak: Mapping[int, bool]
) -> tuple[int, ...]:
    """Start control tokens whose rows are all but zero as new tokens are; all of `weak` are to be trained."""
    faint = [token for token, is_faint in weak.items() if is_faint]
    known = tokenizer.tokenizer.eos_token_id
    like = {} if known is None or known in faint else dict.fromkeys({*tokenizer.stop_ids} & {*faint}, known)
    add_token_rows(base, len(tokenizer), faint, like=like)
    return tuple(weak)


def _require_context(model: PreTrainedModel, why_unpacked: str | None, recipe: Recipe) -> None:
    """UsageError where a pack's tokens cannot be computed by several ranks, each of its own."""
    if why := why_unpacked or why_no_context(model, recipe.max_length):
        raise UsageError(
            f"context_parallel: {recipe.context_parallel}, and {why}",
            rule="ranks that share a pack compute all but attention token by token, and attention by the reach rule",
            remedy="context_parallel=1; for less memory a rank gradient_checkpointing=true, or data_parallel=shard",
        )


def _past_positions(model: PreTrainedModel, longest: int) -> tuple[str, ...]:
    """A word where rows are longer than the model has positions for; UsageError where these are rows of a table."""
    limit = num_positions(model.config)
    if limit is None or longest <= limit:
        return ()
    if has_learned_positions(model):
        raise UsageError(
            f"the longest example has {longest} tokens, the model's table of positions {limit} rows",
            rule="a model with learnt positions takes no text longer than their table",
            remedy=f"max_length={limit}",
        )
    factor = -(-longest // limit)
    return (
        f"the longest example has {longest} tokens, and the model has positions for {limit}: what it does beyond is "
        f"not what it was built for; rope_scaling: {{rope_type: yarn, factor: {factor}}} makes more",
    )


def _token_notes(tokenizer: ChatTokenizer, untrained: Sequence[int]) -> tuple[str, ...]:
    if not untrained:
        return ()
    names = ", ".join(str(tokenizer.tokenizer.convert_ids_to_tokens(token)) for token in untrained)
    return (f"the base never trained the rows of {names}, which its template uses: they are trained now",)


def _load_base(recipe: Recipe, device: torch.device | None, *, dealt: bool) -> PreTrainedModel:
    """The model whose weights are trained, or beside whose frozen weights others are; its RoPE is not yet scaled."""
    if not METHODS[recipe.adapter].quantised:
        return load_model(recipe.model, device=device)
    compute: torch.dtype = getattr(torch, recipe.dtype.value)
    if dealt:
        return load_to_deal(recipe.model, compute=compute)
    base = load_quantized(
        recipe.model, compute=compute, device=device or default_device(), between=give_back_freed_memory
    )
    give_back_freed_memory()
    return base


def _anchor(recipe: Recipe, forward: Forward) -> Anchor | None:
    strength = recipe.forgetting.kl_to_base if recipe.forgetting else 0.0
    return Anchor(forward, strength) if strength else None


def _embedding_names(model: nn.Module, tables: Sequence[nn.Parameter]) -> frozenset[str]:
    """The vocabulary's parameters by name, also PEFT's rows for new tokens: `muon` leaves them to AdamW."""
    known = {id(table) for table in tables}
    return frozenset(
        name for name, p in model.named_parameters() if id(p) in known or "trainable_tokens" in name
    )
