"""The batcher: one thread that computes, slots for sequences in the making, a queue before them.

    event loop                       engine thread
    submit(Ticket(asks))   ------>   waiting -> slot: prompt in chunks, then a token per round with all others
    async for event in ticket  <---  Piece, Piece, ..., Ended
    ticket.cancel()        ------>   the slot is free before the next round

A sequence joins the round after it came and leaves in the round in which it ends; nobody waits for a batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import TracebackType
from typing import Literal

from torch import Tensor

from burnish.serving.compute import PROMPT_TOKENS, Computer, Memory
from burnish.serving.roster import Served
from burnish.serving.sampling import Sampler, Sampling, Thought, think
from burnish.serving.spelling import Spelling

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer wanted. `num_top`: how many likeliest tokens to name beside each one; None: no log-probabilities."""

    served: Served
    prompt_ids: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stops: Sequence[str] = ()
    num_top: int | None = None
    reads_prompt: bool = False
    shown: frozenset[str] = frozenset()
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """One token of an answer: what the model thought of it, and where in the text it begins."""

    thought: Thought
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that was added to an answer, with the tokens that it is of."""

    choice: int
    text: str
    tokens: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompted:
    """What the model thought of each token of the prompt but the first."""

    choice: int
    thoughts: tuple[Thought, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer is complete; `num_tokens` counts all that was generated, the stop token too."""

    choice: int
    reason: FinishReason
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Computing broke down; the server goes on."""

    error: str


Event = Piece | Prompted | Ended | Failed


class Ticket:
    """The answers of one request, on their way from the engine's thread to the event loop."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self.asks = tuple(asks)
        self.cancelled = False
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def tell(self, event: Event) -> None:
        """From the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            self.cancelled = True

    def cancel(self) -> None:
        """Nobody waits for these answers any more."""
        self.cancelled = True

    async def events(self) -> AsyncIterator[Event]:
        """All events, until every answer has ended or computing failed."""
        left = len(self.asks)
        while left:
            event = await self._events.get()
            yield event
            left = 0 if isinstance(event, Failed) else left - isinstance(event, Ended)


@dataclass(slots=True, eq=False)
class _Sequence:
    """One answer in the making."""

    ticket: Ticket
    ask: Ask
    memory: Memory
    sampler: Sampler
    spelling: Spelling
    token: int | None = None
    num_tokens: int = 0
    ended: bool = False
    kept: list[Told] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)

    @classmethod
    def of(cls, ticket: Ticket, ask: Ask) -> _Sequence:
        spelling = Spelling(ask.served.vocabulary, stops=ask.stops, shown=ask.shown)
        return cls(ticket, ask, Memory(ask.served), Sampler(ask.sampling, ask.choice), spelling)

    @property
    def is_read(self) -> bool:
        return self.memory.length >= len(self.ask.prompt_ids)

    def take_prompt(self, logits: Tensor, start: int) -> None:
        """Logits of a chunk of the prompt, or of its last token alone."""
        ask = self.ask
        if ask.reads_prompt:
            following = ask.prompt_ids[start + 1 : start + 1 + len(logits)]
            pairs = zip(logits, following, strict=False)
            self.thoughts += [think(row, token, ask.num_top or 0) for row, token in pairs]
        if not self.is_read:
            return
        if ask.reads_prompt:
            self.ticket.tell(Prompted(ask.choice, tuple(self.thoughts)))
        if ask.max_tokens:
            self.take(logits[-1])
        else:
            self._end("length", "")

    def take(self, logits: Tensor) -> None:
        """Choose the next token, and tell what may be told."""
        ask = self.ask
        token = self.sampler.choose(logits)
        self.num_tokens += 1
        if token in ask.served.stop_ids:
            self._end("stop", self.spelling.finish())
            return
        if ask.num_top is not None:
            self.kept.append(Told(think(logits, token, ask.num_top), self.spelling.length))
        text = self.spelling.push(token)
        if self.spelling.stopped:
            self._end("stop", text)
        elif self.num_tokens >= ask.max_tokens:
            self._end("length", text + self.spelling.finish())
        else:
            self.token = token
            if text:
                self._tell(text)

    def _end(self, reason: FinishReason, text: str) -> None:
        self.ended = True
        if self.spelling.stopped:
            reason = "stop"
            self.kept = [told for told in self.kept if told.offset < self.spelling.length]
        if text or self.kept:
            self._tell(text)
        self.ticket.tell(Ended(self.ask.choice, reason, self.num_tokens))

    def _tell(self, text: str) -> None:
        self.ticket.tell(Piece(self.ask.choice, text, tuple(self.kept)))
        self.kept.clear()


class Engine:
    """Runs tickets. Use as a context manager; leaving it, what was accepted is still answered."""

    def __init__(self, computer: Computer) -> None:
        self._computer = computer
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="burnish-engine", daemon=True)

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def slots(self) -> int:
        """How many sequences are computed at a time."""
        return self._computer.width

    @property
    def in_use(self) -> int:
        """Slots that hold a sequence now."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences before the slots."""
        return len(self._waiting)

    def submit(self, asks: Sequence[Ask]) -> Ticket:
        """Accept a request's answers; called on the event loop that will read the ticket."""
        ticket = Ticket(asks)
        with self._changed:
            self._waiting.extend(_Sequence.of(ticket, ask) for ask in asks)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Free what a ticket holds; nothing happens where it has ended."""
        ticket.cancel()
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while self._admit():
            try:
                self._round()
            except Exception as error:  # a bug outside of any one group; every answer on the way is lost
                self._fail(self._running, error)

    def _admit(self) -> bool:
        """Wait for work; false when there is none and there will be none."""
        with self._changed:
            while True:
                self._running = [s for s in self._running if not (s.ended or s.ticket.cancelled)]
                while self._waiting and len(self._running) < self.slots:
                    sequence = self._waiting.popleft()
                    if not sequence.ticket.cancelled:
                        self._running.append(sequence)
                if self._running:
                    return True
                if self._stopping:
                    return False
                self._changed.wait()

    def _round(self) -> None:
        """Some of the prompts, then a token for everyone whose prompt is read."""
        room = PROMPT_TOKENS
        for sequence in self._running:
            if room > 0 and not sequence.is_read:
                room -= self._read(sequence, room)
        ready = sorted(
            (s for s in self._running if s.is_read and not s.ended and not s.ticket.cancelled),
            key=lambda s: s.ask.served.id,
        )
        for _, group in groupby(ready, key=lambda s: s.ask.served.id):
            self._step(list(group))

    def _read(self, sequence: _Sequence, room: int) -> int:
        """Compute the next chunk of a prompt; how long it was."""
        ask, start = sequence.ask, sequence.memory.length
        size = self._computer.prompt_tokens or len(ask.prompt_ids)
        chunk = ask.prompt_ids[start : start + size]
        try:
            logits = self._computer.read(sequence.memory, chunk, all_rows=ask.reads_prompt)
            sequence.take_prompt(logits, start)
        except Exception as error:
            self._fail([sequence], error)
        return len(chunk)

    def _step(self, group: list[_Sequence]) -> None:
        tokens = [sequence.token for sequence in group if sequence.token is not None]
        try:
            found = self._computer.step([sequence.memory for sequence in group], tokens)
            for sequence, logits in zip(group, found, strict=True):
                sequence.take(logits)
        except Exception as error:
            self._fail(group, error)

    def _fail(self, group: Sequence[_Sequence], error: Exception) -> None:
        for sequence in group:
            if not sequence.ended:
                sequence.ended = True
                sequence.ticket.tell(Failed(f"{type(error).__name__}: {error}"))
                sequence.ticket.cancel()
