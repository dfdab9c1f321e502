"""The few plain values that cross floors: where a row came from, what it holds, what is graded.

A row on its way through burnish, with real values:

    file    data/train.jsonl:7     {"messages": [{"role": "user", "content": "Hi"}, ...]}
    Row     Row(index=6, source=0, origin=Origin("data/train.jsonl", 7), content=Conversation(...))
    Example Example(row=6, turns=(1,), input_ids=[1, 32, 8, ...], weights=[0.0, 0.0, 1.0, ...])

Nothing here imports torch or numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""One chat message in OpenAI's shape (`role`, `content`, `tool_calls`, ...), as templates read it.

Three keys are burnish's own and never reach a template: `weight` (0, 1 or any real: how much the
turn counts in the loss), `train` (false: context only) and `untrained`, the parts of the content that
are context, as pairs of character offsets.
"""


REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""The names under which a message may hold what was thought; the first one that is there counts."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row was read: a file (or hub name) and its 1-based line (or row number in Parquet)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat: messages, the tools and documents the model was offered, and variables for its template alone."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    variables: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Plain text to continue and its continuation; no chat template, only the completion graded."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text, graded from end to end: continued pre-training."""

    text: str


Content = Conversation | Completion | Document


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the data: its number in reading order over all datasets, its source, its content."""

    index: int
    source: int
    origin: Origin
    content: Content


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that could not be read: why, in a few countable words, and in detail."""

    index: int
    source: int
    origin: Origin
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Example:
    """One token sequence that training feeds.

    `weights[k]` is the weight of token `k` as a *target*: 0.0 means that it is context. The shift
    by one happens in one place only, where a batch is built (`data.pack`). `weights[0]` is always
    0.0, for nothing comes before it. `turns` are the indices of the assistant messages graded here
    (empty for completions and documents); `cut` counts graded tokens that were cut off the end.
    """

    row: int
    source: int
    turns: tuple[int, ...]
    input_ids: list[int]
    weights: list[float]
    cut: int = field(default=0)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_graded(self) -> int:
        """How many tokens of the sequence are targets."""
        return len(self.weights) - self.weights.count(0.0)
