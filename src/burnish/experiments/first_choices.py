"""How superficial tuning is: what share of the tokens it grades the base ranked first already, before any training.

chat      the context of training: ChatML, whose two tokens the base has never seen
plain     the question, a line break, the answer so far: text as the base knows it

Content is the value that is asked for, stop the end of the turn, format all else: "The capital of Peru is" and ".".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from burnish.experiments.cells import starting_assistant
from burnish.marble.demonstrations import Question
from burnish.models.assistant import Assistant
from burnish.models.generate import evaluating

GROUPS = ("content", "format", "stop")


def first_choices(asked: Sequence[Question], model: str = "marble") -> dict[str, Any]:
    """For both contexts: of each group, how many graded tokens, and the share that the base ranked first."""
    base = starting_assistant(model)
    found: dict[str, Any] = {}
    for context in ("chat", "plain"):
        ranks: dict[str, list[int]] = {group: [] for group in GROUPS}
        for one in asked:
            for group, rank in _ranks(base, one, context):
                ranks[group].append(rank)
        everything = [rank for own in ranks.values() for rank in own]
        found[context] = {
            group: {
                "n": len(own),
                "first": sum(rank == 0 for rank in own) / len(own),
                "top5": sum(rank < 5 for rank in own) / len(own),
            }
            for group, own in {"all": everything, **ranks}.items()
            if own
        }
    return found


def _ranks(base: Assistant, one: Question, context: str) -> list[tuple[str, int]]:
    """The group and the base's rank (from 0) of each token of the answer."""
    if context == "chat":
        prompt = base.tokenizer.prompt_ids(one.text)
        end = [min(base.tokenizer.encoder.stop_ids - {base.tokenizer.tokenizer.eos_token_id})]
    else:
        prompt = list(base.tokenizer.tokenizer(f"{one.text}\n")["input_ids"])
        end = list(base.tokenizer.tokenizer("\n", add_special_tokens=False)["input_ids"])[-1:]
    written = base.tokenizer.tokenizer(one.answer, add_special_tokens=False, return_offsets_mapping=True)
    answer = list(written["input_ids"])
    first = one.answer.find(one.fact.value)
    spans = written["offset_mapping"]
    groups = [
        "content" if first >= 0 and start < first + len(one.fact.value) and stop > first else "format"
        for start, stop in spans
    ]
    ids = torch.tensor([[*prompt, *answer, *end]])
    with evaluating(base.model):
        logits = base.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    targets = ids[0, len(prompt) :]
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1).tolist()
    return list(zip([*groups, "stop"], ranks, strict=True))
