"""Answers of a teacher or a judge, kept under what was asked, so that none is paid for twice.

    answers.jsonl   {"sent":"9f2c...","cost":0.0021}                                  before a request leaves
                    {"key":"9f2c...","text":"Four.","finish_reason":"stop",...}       when its answer is here
                    {"sent":"07aa...","cost":0.0021}  {"failed":"07aa..."}            refused: nothing was paid

What was sent and has neither answer nor refusal was in flight at a kill: it may have been paid, and counts as paid.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from burnish.curation.lines import LineFile, read_lines, spoiled
from burnish.errors import UsageError
from burnish.types import Message

ANSWERS = "answers.jsonl"
TEMPLATE_TOKENS = 32
"""What a chat template may add to a message, for estimates from above."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for one answer; `sample` tells k answers to the same messages apart."""

    messages: tuple[Message, ...]
    sample: int = 0
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int = 0

    def body(self, model: str) -> dict[str, Any]:
        """The request in OpenAI's form."""
        return {
            "model": model,
            "messages": list(self.messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed + self.sample,
        }

    def key(self, place: str, model: str) -> str:
        """The request's address: a hash of all that can change its answer."""
        written = orjson.dumps([place, self.sample, self.body(model)], option=orjson.OPT_SORT_KEYS)
        return blake2b(written, digest_size=16).hexdigest()

    @property
    def most_prompt_tokens(self) -> int:
        """More tokens than the prompt can have: one for each byte, and the template's own."""
        return sum(
            len(str(message.get("content", "")).encode()) + TEMPLATE_TOKENS for message in self.messages
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, why it ended, and what it took; `model` is what the other side says it is."""

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cost: float
    model: str


@dataclass(frozen=True, slots=True)
class NoReply:
    """A request that brings no answer, and why: `refused` by the server, or the `cost cap`."""

    key: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    def most(self, ask: Ask) -> float:
        """More than the request can cost."""
        return self.of(ask.most_prompt_tokens, ask.max_tokens)


class Teacher(Protocol):
    """Whoever answers: an endpoint, or a model on this machine."""

    @property
    def name(self) -> str:
        """The model, as provenance records it."""

    @property
    def place(self) -> str:
        """The endpoint, or the directory of the model."""

    def ask_all(self, asks: Iterator[Ask]) -> Iterator[Reply | NoReply]:
        """Answers in the order of the asks; what is kept already is not asked again."""


class AnswerStore:
    """The kept answers of one folder, open in one process at a time; used as a context manager."""

    def __init__(self, folder: Path, *, max_cost: float | None = None) -> None:
        self.path = folder / ANSWERS
        self.max_cost = max_cost
        self._answers: dict[str, Reply] = {}
        self._open: Counter[str] = Counter()
        self._costs: dict[str, float] = {}
        self._spent = 0.0
        self._flying = 0
        self._guard = threading.Condition()
        self._file = LineFile(self.path)
        for place, fields in read_lines(self.path):
            try:
                self._take(fields)
            except (TypeError, KeyError, ValueError) as error:
                raise spoiled(place, error) from error
        self.num_lost = sum(self._open.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def spent(self) -> float:
        """Dollars paid for what lies here, and, from above, for what was lost on the way."""
        return self._spent

    def get(self, key: str) -> Reply | None:
        """The kept answer."""
        return self._answers.get(key)

    def send(self, key: str, cost: float) -> bool:
        """Note that a request leaves which may cost so much; false, and nothing noted, where the cap forbids it.

        Requests on their way are reckoned at the most they can cost: where they alone stand in the way, they are
        waited for.
        """
        with self._guard:
            while self.max_cost is not None and self._spent + cost > self.max_cost:
                if not self._flying:
                    return False
                self._guard.wait()
            self._take_sent(key, cost)
            self._file.append({"sent": key, "cost": cost})
            self._flying += 1
            return True

    def failed(self, key: str) -> None:
        """Note that a request was refused, so that nothing was paid."""
        with self._guard:
            self._take_failed(key)
            self._file.append({"failed": key})
            self._land()

    def doubtful(self) -> None:
        """Note that a request was given up, and may have been paid: it stays counted at the most it can cost."""
        with self._guard:
            self._land()

    def put(self, reply: Reply) -> None:
        """Keep an answer."""
        with self._guard:
            self._take_answer(reply)
            self._file.append(asdict(reply))
            self._land()

    def _land(self) -> None:
        self._flying = max(0, self._flying - 1)
        self._guard.notify_all()

    def _take_sent(self, key: str, cost: float) -> None:
        self._open[key] += 1
        self._costs[key] = cost
        self._spent += cost

    def _take_failed(self, key: str) -> None:
        if self._open[key] > 0:
            self._open[key] -= 1
            self._spent -= self._costs[key]

    def _take_answer(self, reply: Reply) -> None:
        self._take_failed(reply.key)
        self._spent += reply.cost
        self._answers[reply.key] = reply

    def _take(self, fields: dict[str, Any]) -> None:
        """Take over a line of an earlier run."""
        if "sent" in fields:
            self._take_sent(fields["sent"], float(fields["cost"]))
        elif "failed" in fields:
            self._take_failed(fields["failed"])
        else:
            self._take_answer(Reply(**fields))


def require_prices(max_cost: float | None, prices: Prices) -> None:
    """UsageError where a cap is given and no price: it could never be reached."""
    if max_cost is not None and prices.prompt == prices.completion == 0:
        raise UsageError(
            f"--max-cost {max_cost} without a price",
            rule="a cost cap needs what a million tokens cost",
            remedy="say --price-prompt and --price-completion, in dollars per million tokens",
        )
