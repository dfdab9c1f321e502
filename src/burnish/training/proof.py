"""What is gathered for the certificate while rows go by: broken rules with examples, and what became of turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from burnish.chat.reasoning import has_reasoning
from burnish.data.pack import build_pack
from burnish.data.prepare import Prepared
from burnish.data.workers import EncodedRow
from burnish.models.tokenizer import ChatTokenizer
from burnish.training.violations import broken_rules, pack_violations
from burnish.types import Conversation, Example, Message, Origin

EXAMPLES = 5
"""How many rows are named for each broken rule."""

_PACK_TOKENS = 1 << 14
"""Packs are checked in pieces of about so many tokens, whatever the size of the set."""


class Proof:
    """Told of every row as it is encoded (`inspect`), then of the whole (`finish`).

    `violations` counts broken rules by code; `examples` names the first rows of each. `split` counts the conversations
    that became several views, their views, those with reasoning, their tokens and how many begin an earlier view too.
    """

    def __init__(self) -> None:
        self.violations: Counter[str] = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}
        self.split = dict.fromkeys(("conversations", "views", "with_reasoning", "tokens", "shared_tokens"), 0)
        self._waiting: list[tuple[Example, Origin]] = []
        self._waiting_tokens = 0

    def inspect(self, encoded: EncodedRow, kept: Sequence[Example]) -> None:
        """One row: what the encoder's side found broken, what is kept of it."""
        origin = encoded.row.origin
        for violation in encoded.violations:
            self._enter(violation.code, encoded.row.index, origin, violation.message, violation.detail)
        if isinstance(encoded.row.content, Conversation) and len(kept) > 1:
            self._count_split(encoded.row.content.messages, kept)
        self._waiting += [(view, origin) for view in kept]
        self._waiting_tokens += sum(map(len, kept))
        if self._waiting_tokens > _PACK_TOKENS:
            self.check_pack()

    def finish(self, data: Prepared, tokenizer: ChatTokenizer) -> None:
        """The rules that need no row, on all that is stored."""
        self.check_pack()
        bos = tokenizer.tokenizer.bos_token_id
        for group in (data.train, data.held_out):
            for code, row in broken_rules(group, stop_ids=tokenizer.stop_ids, bos_id=bos):
                self._enter(code, row, data.origins[row], None, "")

    def as_dict(self) -> dict[str, Any]:
        """What was found so far, for JSON."""
        return {"violations": dict(self.violations), "examples": self.examples, "split": self.split}

    def take_in(self, told: Mapping[str, Any]) -> None:
        """Add what another proof found of later rows."""
        self.violations.update(told["violations"])
        for code, examples in told["examples"].items():
            named = self.examples.setdefault(code, [])
            named += examples[: EXAMPLES - len(named)]
        for key, count in told["split"].items():
            self.split[key] += count

    def check_pack(self) -> None:
        """Look at the rows that wait for a pack to be full."""
        examples = [view for view, _ in self._waiting]
        if not examples:
            return
        try:
            broken = pack_violations(build_pack(examples, share_prefixes=True), examples)
        except ValueError as error:
            broken = [f"cannot be packed: {error}"]
        for code in broken:
            self._enter(
                code, examples[0].row, self._waiting[0][1], None, f"in a pack of {len(examples)} sequences"
            )
        self._waiting, self._waiting_tokens = [], 0

    def _enter(self, code: str, row: int, origin: Origin, message: int | None, detail: str) -> None:
        self.violations[code] += 1
        named = self.examples.setdefault(code, [])
        if len(named) < EXAMPLES:
            named.append({"place": str(origin), "row": row, "message": message, "detail": detail})

    def _count_split(self, messages: Sequence[Message], views: Sequence[Example]) -> None:
        split = self.split
        split["conversations"] += 1
        split["views"] += len(views)
        split["with_reasoning"] += any(map(_thinks, messages))
        split["tokens"] += sum(map(len, views))
        # Each view against the one before it: of a history that is rewritten, the start stays the same.
        for before, view in pairwise(views):
            length = min(len(before), len(view))
            differ = np.not_equal(before.input_ids[:length], view.input_ids[:length])
            split["shared_tokens"] += int(differ.argmax()) if differ.any() else length


def _thinks(message: Message) -> bool:
    return message.get("role") == "assistant" and has_reasoning(message)
