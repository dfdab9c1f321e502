"""What a run says while it runs. The loop yields these; the run writes them down; a terminal draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Encoding:
    """Rows are being encoded and proved; nothing is written down of it."""

    rows: int
    of: int


@dataclass(frozen=True, slots=True)
class Ready:
    """All is known before step 0: what will be trained, on what, for how long; `adapted` counts layers by name."""

    run: Path
    num_steps: int
    start_step: int
    trainable: int
    parameters: int
    rows: int
    held_out_rows: int
    notes: tuple[str, ...] = ()
    adapted: str = ""


@dataclass(frozen=True, slots=True)
class Stepped:
    """One update: `step` counts from 1; `loss` is the mean over the global batch's graded tokens.

    `kl_to_base`, where the recipe holds the model near its base, is KL(base || tuned) over the same tokens.
    """

    step: int
    num_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    graded_tokens: int
    tokens: int
    seconds: float
    memory_bytes: int
    source_loss: dict[int, float] = field(default_factory=dict)
    source_tokens: dict[int, int] = field(default_factory=dict)
    stage: str = ""
    kl_to_base: float | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A batch whose loss or gradient was not finite, passed over by `on_nonfinite: skip_batch`; `why` has its rows."""

    step: int
    why: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that training goes on with, and that its user should know."""

    step: int
    why: str


@dataclass(frozen=True, slots=True)
class Audited:
    """After the first update: everything that is to be trained got a gradient; `found` says so in words."""

    step: int
    modules: int
    experts: int
    of_experts: int
    found: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Held-out loss and accuracy (share of graded tokens that are the model's first choice) after `step`."""

    step: int
    loss: float
    accuracy: float
    graded_tokens: int
    best: bool
    source_loss: dict[int, float] = field(default_factory=dict)
    source_accuracy: dict[int, float] = field(default_factory=dict)
    source_tokens: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the model answers to the recipe's sample prompts after `step`."""

    step: int
    samples: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Looked:
    """What the model thinks of single tokens after `step`; `line` is that of sharpening.jsonl."""

    step: int
    line: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drifted:
    """How far one probe's loss is from the base's after `step`, and what was done about it (docs/forgetting.md)."""

    step: int
    probe: str
    loss: float
    base_loss: float
    drift: float
    low: float
    high: float
    budget: float
    breached: bool
    task_loss: float | None
    act: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint is on disk, whole."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event: `finished`, `early_stopping`, `forgetting` or `interrupted`."""

    step: int
    why: str


Event = (
    Encoding
    | Ready
    | Stepped
    | Skipped
    | Warned
    | Audited
    | Evaluated
    | Sampled
    | Looked
    | Drifted
    | Saved
    | Stopped
)
