"""What comes back: events of the engine as OpenAI's objects, whole or as chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from burnish.serving.engine import Ended, Event, Failed, Piece, Prompted, Told
from burnish.serving.prompting import Prepared
from burnish.serving.protocol import ApiError, ChatRequest, CompletionRequest
from burnish.serving.sampling import Thought
from burnish.serving.spelling import Vocabulary
from burnish.serving.tools import ToolCall, ToolReader

Json = dict[str, Any]
Events = AsyncIterator[Event]


@dataclass(slots=True)
class Choice:
    """One answer as it grows."""

    tools: ToolReader
    text: str = ""
    tokens: list[Told] = field(default_factory=list)
    prompted: Sequence[Thought] = ()
    reason: str | None = None


class Form:
    """How a request's answers are written; `chunk` tells what is new, `whole` all of it."""

    kind = ""
    prefix = ""

    def __init__(self, prepared: Prepared, *, include_usage: bool = False) -> None:
        self.prepared = prepared
        self.vocabulary: Vocabulary = prepared.served.vocabulary
        self.choices = [Choice(ToolReader(prepared.format)) for _ in prepared.asks]
        self.num_tokens = 0
        self._include_usage = include_usage
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time())}

    def take(self, event: Event) -> Iterator[Json]:
        """Take in an event; the chunks that tell of it."""
        raise NotImplementedError

    def choice(self, index: int) -> Json:
        """One finished answer."""
        raise NotImplementedError

    def first(self) -> Iterator[Json]:
        """What a stream begins with."""
        return iter(())

    def whole(self) -> Json:
        """The response of a request without a stream."""
        choices = [self.choice(index) for index in range(len(self.choices))]
        return {**self._object(self.kind), "choices": choices, "usage": self.usage()}

    def last(self) -> Iterator[Json]:
        """What a stream ends with."""
        if self._include_usage:
            yield {**self._object(self.chunk_kind), "choices": [], "usage": self.usage()}

    @property
    def chunk_kind(self) -> str:
        """The `object` of a chunk."""
        return self.kind

    def usage(self) -> Json:
        """Tokens fed and generated, the stop tokens too."""
        fed = self.prepared.num_prompt_tokens
        return {
            "prompt_tokens": fed,
            "completion_tokens": self.num_tokens,
            "total_tokens": fed + self.num_tokens,
        }

    def _object(self, kind: str) -> Json:
        return {**self._head, "object": kind, "model": self.prepared.served.id}

    def _chunk(self, index: int, **fields: Any) -> Json:
        chunk = self._object(self.chunk_kind)
        chunk["choices"] = [{"index": index, "finish_reason": None, "logprobs": None, **fields}]
        return {**chunk, "usage": None} if self._include_usage else chunk


class ChatForm(Form):
    """`chat.completion` and its chunks."""

    kind, prefix = "chat.completion", "chatcmpl"

    @classmethod
    def of(cls, request: ChatRequest, prepared: Prepared) -> ChatForm:
        """The form of a request's answers."""
        return cls(prepared, include_usage=request.include_usage)

    @property
    def chunk_kind(self) -> str:
        """The `object` of a chunk."""
        return "chat.completion.chunk"

    def first(self) -> Iterator[Json]:
        """The role, once for each choice."""
        for index in range(len(self.choices)):
            yield self._chunk(index, delta={"role": "assistant", "content": ""})

    def take(self, event: Event) -> Iterator[Json]:
        """Content as it comes, calls at the end."""
        if isinstance(event, Piece):
            choice = self.choices[event.choice]
            choice.tokens += event.tokens
            content = choice.tools.push(event.text)
            choice.text += content
            if content or event.tokens:
                logprobs = self._logprobs(event.choice, event.tokens)
                yield self._chunk(event.choice, delta={"content": content}, logprobs=logprobs)
        elif isinstance(event, Ended):
            yield from self._end(event)

    def _end(self, event: Ended) -> Iterator[Json]:
        choice = self.choices[event.choice]
        self.num_tokens += event.num_tokens
        content, calls = choice.tools.finish()
        choice.text += content
        choice.reason = "tool_calls" if calls and event.reason == "stop" else event.reason
        self._calls[event.choice] = told = [_told_call(call) for call in calls]
        if content:
            yield self._chunk(event.choice, delta={"content": content})
        for number, call in enumerate(told):
            yield self._chunk(event.choice, delta={"tool_calls": [{"index": number, **call}]})
        yield self._chunk(event.choice, delta={}, finish_reason=choice.reason)

    def __init__(self, prepared: Prepared, *, include_usage: bool = False) -> None:
        super().__init__(prepared, include_usage=include_usage)
        self._calls: dict[int, list[Json]] = {}

    def choice(self, index: int) -> Json:
        """A message, with its calls where there are some."""
        choice, calls = self.choices[index], self._calls.get(index)
        message: Json = {
            "role": "assistant",
            "content": choice.text or (None if calls else ""),
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = calls
        logprobs = self._logprobs(index, choice.tokens)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.reason}

    def _logprobs(self, index: int, tokens: Sequence[Told]) -> Json | None:
        if self.prepared.asks[index].num_top is None:
            return None
        return {"content": [self._token(told.thought) for told in tokens], "refusal": None}

    def _token(self, thought: Thought) -> Json:
        top = [self._entry(token, logprob) for token, logprob in thought.top]
        return {**self._entry(thought.token, thought.logprob), "top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> Json:
        vocabulary = self.vocabulary
        return {"token": vocabulary.piece(token), "logprob": logprob, "bytes": vocabulary.bytes_of(token)}


class TextForm(Form):
    """`text_completion`, whose chunks have the same shape."""

    kind, prefix = "text_completion", "cmpl"

    def __init__(self, prepared: Prepared, request: CompletionRequest) -> None:
        super().__init__(prepared, include_usage=request.include_usage)
        self._per_prompt = request.n
        self._echo = request.echo
        # Told as it was written, where it was written: ids may spell a text in other words.
        self._echoed = [
            given if isinstance(given, str) else self.vocabulary.text(given) for given in request.prompts
        ]

    def first(self) -> Iterator[Json]:
        """The prompts, where they are to be told again and nothing of them is still to be computed."""
        for index, ask in enumerate(self.prepared.asks):
            if self._echo and not ask.reads_prompt:
                yield self._chunk(index, text=self._prompt(index))

    def take(self, event: Event) -> Iterator[Json]:
        """Text as it comes."""
        if isinstance(event, Prompted):
            self.choices[event.choice].prompted = event.thoughts
            yield self._chunk(
                event.choice, text=self._prompt(event.choice), logprobs=self._logprobs(event.choice, (), True)
            )
        elif isinstance(event, Piece):
            choice = self.choices[event.choice]
            choice.text += event.text
            choice.tokens += event.tokens
            logprobs = self._logprobs(event.choice, event.tokens, False)
            yield self._chunk(event.choice, text=event.text, logprobs=logprobs)
        elif isinstance(event, Ended):
            self.num_tokens += event.num_tokens
            self.choices[event.choice].reason = event.reason
            yield self._chunk(event.choice, text="", finish_reason=event.reason)

    def choice(self, index: int) -> Json:
        """A text, after its prompt where that is to be told again."""
        choice = self.choices[index]
        return {
            "index": index,
            "text": (self._prompt(index) if self._echo else "") + choice.text,
            "logprobs": self._logprobs(index, choice.tokens, self._echo),
            "finish_reason": choice.reason,
        }

    def _prompt(self, index: int) -> str:
        return self._echoed[index // self._per_prompt]

    def _logprobs(self, index: int, tokens: Sequence[Told], with_prompt: bool) -> Json | None:
        if self.prepared.asks[index].num_top is None:
            return None
        entries: list[tuple[int, Thought | None, int]] = []
        if with_prompt:
            ids, at = self.prepared.asks[index].prompt_ids, 0
            for token, thought in zip(ids, (None, *self.choices[index].prompted), strict=True):
                entries.append((token, thought, at))
                at += len(self.vocabulary.text([token]))
        start = len(self._prompt(index)) if self._echo else 0
        entries += [(told.thought.token, told.thought, start + told.offset) for told in tokens]
        piece = self.vocabulary.piece
        return {
            "tokens": [piece(token) for token, _, _ in entries],
            "token_logprobs": [thought and thought.logprob for _, thought, _ in entries],
            "top_logprobs": [
                thought and {piece(token): logprob for token, logprob in thought.top}
                for _, thought, _ in entries
            ],
            "text_offset": [offset for _, _, offset in entries],
        }


async def gathered(form: Form, events: Events) -> Json:
    """The whole response; ApiError where computing failed."""
    async for event in events:
        if isinstance(event, Failed):
            raise ApiError(500, "computing the answer failed", code="computation_failed")
        for _ in form.take(event):
            pass
    return form.whole()


async def streamed(form: Form, events: Events, note: Callable[[str], None]) -> AsyncIterator[bytes]:
    """The response as server-sent events; a failure is told as one, and ends the stream."""
    for chunk in form.first():
        yield _line(chunk)
    async for event in events:
        if isinstance(event, Failed):
            note(event.error)
            error = ApiError(500, "computing the answer failed", code="computation_failed")
            yield _line(error.as_dict())
            return
        for chunk in form.take(event):
            yield _line(chunk)
    for chunk in form.last():
        yield _line(chunk)
    yield b"data: [DONE]\n\n"


def _line(chunk: Json) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _told_call(call: ToolCall) -> Json:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
