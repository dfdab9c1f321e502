"""Logits for sequences in the making: prompts one at a time, then all sequences a token further in one pass.

A pass always has the same number of rows. What a matrix product gives for a row depends on the product's shape
(a sum of 256 terms is added up in another order for 16 rows than for 1), never on what the other rows hold. So with
the shape fixed, an answer has the same bits whether one client asks or sixty-four. Where threads get unlike shares of
the rows it depends on the row's place too (fp32, 6 rows on two threads: MKL gives 4 to one and 2 to the other).

    prompts   chunks of PROMPT_TOKENS of one sequence, alone: their shapes follow from the prompt
    tokens    `width` rows, one for each sequence of one model id; rows without a sequence are empty

`probe` asks at the start whether that holds for this model on this machine. Where it does not (experts that get as
many rows as choose them, layers that carry a state, attention outside the registry), sequences are computed one by
one: slower, and right.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from burnish.errors import UsageError
from burnish.models.forward import why_unpacked
from burnish.serving.keys import Keys, Rows, attention_by_rows
from burnish.serving.roster import Roster, Served

PROMPT_TOKENS = 256
"""How much of a prompt is computed before the others get their next token."""

TOLERANCE = 1e-3
"""How far log-probabilities may be from transformers' own, in fp32; in 16 bits, TOLERANCE_16."""

TOLERANCE_16 = 0.25

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(slots=True, eq=False)
class Memory:
    """What one sequence has computed: the ids so far, and their keys and values."""

    served: Served
    length: int = 0
    keys: Keys = field(default_factory=Keys)
    cache: DynamicCache | None = None


class Computer:
    """Computes logits `(rows, V)` in fp32, for `width` sequences at a time."""

    def __init__(self, roster: Roster, *, width: int = 8) -> None:
        self.roster, self.width = roster, width
        self.why_alone: str | None = None
        self._inner = roster.inner
        self._takes = inspect.signature(self._inner.forward).parameters
        self._open = ExitStack()
        if "past_key_values" not in self._takes:
            raise UsageError(
                f"{type(self._inner).__name__} keeps no keys and values",
                rule="serving continues sequences from what it has computed of them",
                remedy="ask the model with `burnish chat`, or serve its export with vLLM",
            )

    def __enter__(self) -> Computer:
        self.why_alone = why_unpacked(self._inner) or _has_experts(self._inner.config.get_text_config())
        if self.why_alone is None:
            self._open.enter_context(attention_by_rows(self._inner))
            self.why_alone = probe(self)
            if self.why_alone is not None:
                self._open.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def prompt_tokens(self) -> int | None:
        """How much of a prompt is computed at a time; None: all of it."""
        return None if self.why_alone else PROMPT_TOKENS

    @torch.inference_mode()
    def read(self, memory: Memory, ids: Sequence[int], *, all_rows: bool = False) -> Tensor:
        """Take in (a chunk of) a prompt; logits after its last token, or after each of them."""
        self.roster.activate(memory.served)
        given = torch.tensor([list(ids)], device=self.roster.device)
        at = torch.arange(memory.length, memory.length + len(ids), device=self.roster.device)[None]
        logits = self._alone(memory, given, at, all_rows) if self.why_alone else None
        if logits is None:
            logits = self._forward(given, at, [memory.keys], all_rows)
        memory.length += len(ids)
        return logits[0, :, : memory.served.num_rows].float()

    @torch.inference_mode()
    def step(self, memories: Sequence[Memory], tokens: Sequence[int]) -> list[Tensor]:
        """One token further for sequences of one model id, at most `width` of them; logits `(V,)` for each."""
        if self.why_alone:
            return [self.read(memory, [token])[-1] for memory, token in zip(memories, tokens, strict=True)]
        served, empty = memories[0].served, self.width - len(memories)
        self.roster.activate(served)
        device = self.roster.device
        ids = torch.tensor([*tokens, *[0] * empty], device=device)[:, None]
        at = torch.tensor([*(memory.length for memory in memories), *[0] * empty], device=device)[:, None]
        logits = self._forward(ids, at, [*(memory.keys for memory in memories), *[None] * empty], False)
        for memory in memories:
            memory.length += 1
        return list(logits[: len(memories), -1, : served.num_rows].float())

    def _forward(self, ids: Tensor, at: Tensor, keys: Sequence[Keys | None], all_rows: bool) -> Tensor:
        rows = Rows(keys)
        return self._call(ids, at, rows, all_rows, rows=rows)

    def _alone(self, memory: Memory, ids: Tensor, at: Tensor, all_rows: bool) -> Tensor:
        if memory.cache is None:
            memory.cache = DynamicCache(config=self._inner.config)
        return self._call(ids, at, memory.cache, all_rows)

    def _call(self, ids: Tensor, at: Tensor, cache: Any, all_rows: bool, **extra: Any) -> Tensor:
        if "position_ids" in self._takes:
            extra["position_ids"] = at
        if "logits_to_keep" in self._takes:
            extra["logits_to_keep"] = 0 if all_rows else 1
        answer = self.roster.model(input_ids=ids, past_key_values=cache, use_cache=True, **extra)
        logits: Tensor = answer.logits
        return logits if all_rows else logits[:, -1:]


def _has_experts(config: Any) -> str | None:
    found = [key for key in EXPERTS if getattr(config, key, None)]
    return (
        f"{config.model_type} has experts ({found[0]}): how many rows each gets depends on company"
        if found
        else None
    )


def probe(computer: Computer) -> str | None:
    """Why this model's sequences cannot share passes, in words; None if they can.

    Two questions, on made-up ids: are the log-probabilities transformers' own, and has a sequence the same bits alone
    as in company, at whatever place?
    """
    roster = computer.roster
    served = next(iter(roster.by_id.values()))
    draw = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(0, served.num_rows, (size,), generator=draw).tolist()
        for size in (5, 19, 9, 12)[: computer.width]
    ]
    try:
        alone, _ = _steps(computer, served, prompts[:1])
        company, read = _steps(computer, served, prompts)
        everywhere, _ = _steps(computer, served, prompts[:1] * computer.width)
    except Exception as error:  # whatever a model's own code raises when it is entered this way
        return f"{type(roster.inner).__name__} in company: {type(error).__name__}: {error}"
    for found, what in ((company[:1], "what is computed beside it"), (everywhere, "its place in the pass")):
        if not all(torch.equal(a, b) for row in found for a, b in zip(alone[0], row, strict=True)):
            return f"{type(roster.inner).__name__}: an answer's bits depend on {what}, {_passes(computer)}"
    before = roster.inner.config._attn_implementation
    roster.inner.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            own = roster.model(input_ids=torch.tensor([read], device=roster.device), use_cache=False).logits[
                0
            ]
    finally:
        roster.inner.set_attn_implementation(before)
    bound = TOLERANCE if own.dtype == torch.float32 else TOLERANCE_16
    ours = torch.stack(company[0]).log_softmax(-1)
    theirs = own[-len(ours) :, : served.num_rows].float().log_softmax(-1)
    off = float((ours - theirs).abs().max())
    if off > bound:
        return f"{type(roster.inner).__name__}: log-probabilities in company are {off:.2g} from its own"
    return None


def _passes(computer: Computer) -> str:
    return f"in passes of {computer.width} rows on {torch.get_num_threads()} threads (a multiple of 8 may do)"


def _steps(
    computer: Computer, served: Served, prompts: Sequence[Sequence[int]]
) -> tuple[list[list[Tensor]], list[int]]:
    """Three steps after each prompt, always by the same tokens; the logits, and the ids fed of the first."""
    memories = [Memory(served) for _ in prompts]
    found = [[computer.read(memory, ids)[-1]] for memory, ids in zip(memories, prompts, strict=True)]
    fed = list(prompts[0])
    for number in range(3):
        tokens = [ids[number] for ids in prompts]
        fed.append(tokens[0])
        for logits, one in zip(found, computer.step(memories, tokens), strict=True):
            logits.append(one)
    return found, fed
