"""What a model itself says of a row: how surprising its answer is, how much the prompt helps, what it knows already.

    nll       mean -ln p of the answer's tokens after the prompt
    ifd       nll / the same without the prompt: near 1 the prompt does not help, near 0 it says the answer
    solved    1 if every token is the model's first choice: asked greedily, it would answer so already
    unknown   share of the tokens to which it gives less than chance, 1 / vocabulary: facts that it never read

A model with a chat template sees the row as training would feed it. A base without one sees plain text: the prompt, a
blank line, the answer. Tokens that end a turn are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from burnish.chat.refusal import RowRefused
from burnish.curation.items import Item
from burnish.curation.score import Values, exchange
from burnish.data.pack import Pack, pack_all
from burnish.evaluation.fingerprint import fingerprint
from burnish.models.assistant import Assistant, load_assistant
from burnish.models.forward import Forward, open_forward, pack_attention, why_unpacked
from burnish.models.generate import evaluating, num_positions
from burnish.types import Completion, Content, Conversation, Document, Example, Row

TOKENS_PER_PASS = 2048
NAMES = ("nll", "ifd", "solved", "unknown")


@dataclass(slots=True)
class _Sums:
    """Of some graded tokens: how many, their -ln p, first choices, and how many are below chance."""

    tokens: int = 0
    nll: float = 0.0
    first: int = 0
    below_chance: int = 0

    @property
    def mean(self) -> float:
        return self.nll / self.tokens


class ModelScorer:
    """Scores rows by one model."""

    values = NAMES

    def __init__(self, model: str) -> None:
        self._assistant = load_assistant(model)
        self.name = f"model:{fingerprint(model)}"
        packed = why_unpacked(self._assistant.model) is None
        self._forward: Forward = open_forward(self._assistant.model, packed=packed)
        self._limit = num_positions(self._assistant.model.config)

    def score(self, items: Sequence[Item]) -> list[Values | None]:
        """All four numbers for each row; None each where there is no answer, or it does not fit the model."""
        asked: list[Example] = []
        alone: list[Example] = []
        for number, item in enumerate(items):
            views = _views(self._assistant, item.row, number)
            if self._limit is not None and any(len(view) > self._limit for view in views):
                views = []
            asked += views
            anchor = _anchor(self._assistant)
            alone += [_alone(span, anchor, number) for view in views for span in _spans(view)]
        with_prompt = self._measure(asked, len(items))
        without = self._measure(alone, len(items))
        return [_values(a, b) for a, b in zip(with_prompt, without, strict=True)]

    def _measure(self, examples: Sequence[Example], number: int) -> list[_Sums]:
        """Sums over each row's graded tokens."""
        sums = [_Sums() for _ in range(number)]
        if not examples:
            return sums
        model, packed = self._assistant.model, self._forward.packed
        with evaluating(model), pack_attention(model, packed=packed):
            for pack in pack_all(examples, max_tokens=TOKENS_PER_PASS, max_rows=None if packed else 1):
                if len(pack.targets):
                    self._add(pack, sums)
        return sums

    def _add(self, pack: Pack, sums: list[_Sums]) -> None:
        logits = self._forward.logits(pack).float()
        targets = torch.from_numpy(pack.targets).to(logits.device)
        rows = torch.from_numpy(pack.row_of).to(logits.device)
        nll = logits.logsumexp(-1)[rows] - logits[rows, targets]
        first = (logits.argmax(-1)[rows] == targets).tolist()
        chance = math.log(logits.shape[-1])
        # `sources` carries the row's number here, for a pack says whose each target is by its source
        for number, surprise, hit in zip(pack.sources.tolist(), nll.tolist(), first, strict=True):
            one = sums[number]
            one.tokens += 1
            one.nll += surprise
            one.first += hit
            one.below_chance += surprise > chance


def _values(asked: _Sums, alone: _Sums) -> Values:
    if not asked.tokens or not alone.tokens:
        return dict.fromkeys(NAMES)
    return {
        "nll": asked.mean,
        "ifd": asked.mean / alone.mean if alone.mean > 0 else None,
        "solved": float(asked.first == asked.tokens),
        "unknown": asked.below_chance / asked.tokens,
    }


def _views(assistant: Assistant, row: Row, number: int) -> list[Example]:
    """The row as token sequences, its turn ends ungraded; none where it has no answer or cannot be encoded."""
    content = plain(row.content) if assistant.tokenizer.template is None else row.content
    if isinstance(content, Document):
        return []
    try:
        encoded = assistant.tokenizer.encoder.encode(Row(row.index, number, row.origin, content))
    except RowRefused:
        return []
    stops = set(assistant.stop_ids)
    found = []
    for view in encoded:
        pairs = zip(view.input_ids, view.weights, strict=True)
        weights = [0.0 if token in stops else float(weight != 0.0) for token, weight in pairs]
        if any(weights):
            found.append(Example(view.row, number, view.turns, view.input_ids, weights))
    return found


def plain(content: Content) -> Content:
    """A conversation as text to continue: what was said, and the last answer."""
    pair = exchange(content) if isinstance(content, Conversation) else None
    if pair is None:
        return content
    said, answer = pair
    return Completion("\n\n".join([*(str(message["content"]) for message in said), ""]), answer)


def _spans(view: Example) -> list[list[int]]:
    """The graded tokens, run by run."""
    spans: list[list[int]] = []
    before = 0.0
    for token, weight in zip(view.input_ids, view.weights, strict=True):
        if weight and not before:
            spans.append([])
        if weight:
            spans[-1].append(token)
        before = weight
    return spans


def _alone(span: list[int], anchor: int, number: int) -> Example:
    return Example(number, number, (), [anchor, *span], [0.0, *([1.0] * len(span))])


def _anchor(assistant: Assistant) -> int:
    """What stands before a text that begins: the start of text, where a tokenizer has one, else its end."""
    tokenizer = assistant.tokenizer.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(start) if start is not None else 0
