"""From a request to what the engine is asked: rendered by the model's own template, as training rendered it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from burnish.chat.template import TemplateRefusal
from burnish.data.messages import read_messages
from burnish.data.reject import ConversionError
from burnish.errors import DataError
from burnish.models.tokenizer import ChatTokenizer
from burnish.serving.engine import Ask
from burnish.serving.protocol import ApiError, ChatRequest, CompletionRequest
from burnish.serving.roster import Roster, Served
from burnish.serving.tools import ToolFormat, format_of
from burnish.types import Completion, Message

KEPT_KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"})
EMPTY_KEYS = frozenset({"refusal", "annotations", "audio", "function_call"})
"""What clients send back of an answer they were given; they hold nothing."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request made ready: its answers wanted, in order of their index, and how calls are written."""

    served: Served
    asks: list[Ask]
    num_prompt_tokens: int
    format: ToolFormat | None = None
    prompts: tuple[list[int], ...] = ()


class Preparer:
    """Makes requests ready; called in worker threads, for templates and tokenizers take their time."""

    def __init__(self, roster: Roster, *, max_tokens: int) -> None:
        self._roster = roster
        self._max_tokens = max_tokens
        self._positions = roster.num_positions

    def chat(self, request: ChatRequest) -> Prepared:
        """The answers to a chat request."""
        served = self._served(request.model)
        messages = _messages(request.messages)
        tools = request.tools if request.tools and request.tool_choice == "auto" else None
        ids = _prompt_ids(served.tokenizer, messages, tools)
        template = served.tokenizer.template
        calls = format_of(template.source) if tools and template else None
        limit = self._limit(ids, request.limit)
        sampling = request.sampling(served.num_rows)
        asks = [
            Ask(
                served,
                ids,
                limit,
                sampling,
                stops=request.stops,
                num_top=request.num_top,
                shown=calls.shown if calls else frozenset(),
                choice=choice,
            )
            for choice in range(request.n)
        ]
        return Prepared(served, asks, len(ids), calls)

    def completion(self, request: CompletionRequest) -> Prepared:
        """The answers to a completion request: the choices of its first prompt, then of the next."""
        served = self._served(request.model)
        prompts = tuple(_text_ids(served, prompt) for prompt in request.prompts)
        if not prompts:
            raise ApiError(400, "prompt: an empty list", param="prompt")
        sampling = request.sampling(served.num_rows)
        asks = []
        for number, ids in enumerate(prompts):
            limit = self._limit(ids, request.max_tokens)
            asks += [
                Ask(
                    served,
                    ids,
                    limit,
                    sampling,
                    stops=request.stops,
                    num_top=request.logprobs,
                    reads_prompt=request.echo and request.logprobs is not None,
                    choice=number * request.n + choice,
                )
                for choice in range(request.n)
            ]
        return Prepared(served, asks, sum(map(len, prompts)), prompts=prompts)

    def _served(self, name: str) -> Served:
        served = self._roster.by_id.get(name)
        if served is None:
            raise ApiError(
                404,
                f"no model of that name; there are {', '.join(self._roster.by_id)}",
                param="model",
                code="model_not_found",
            )
        return served

    def _limit(self, ids: list[int], wanted: int | None) -> int:
        """How many tokens an answer to this prompt may have; ApiError where that is not what was asked."""
        if not ids:
            raise ApiError(400, "the prompt has no tokens", param="prompt")
        if wanted is not None and wanted > self._max_tokens:
            raise ApiError(
                400,
                f"max_tokens is {wanted}; this server gives at most {self._max_tokens}",
                param="max_tokens",
            )
        if self._positions is None:
            return self._max_tokens if wanted is None else wanted
        room = self._positions - len(ids)
        if room < (1 if wanted is None else wanted):
            raise ApiError(
                400,
                f"the model has {self._positions} positions; the prompt has {len(ids)} tokens, and "
                f"{wanted or 1} are to follow",
                param="messages",
                code="context_length_exceeded",
            )
        return min(room, self._max_tokens) if wanted is None else wanted


def _messages(raw: list[dict[str, Any]]) -> list[Message]:
    """Messages as rows have them, by the reader that training uses; ApiError names the place."""
    cleaned = []
    for number, message in enumerate(raw):
        kept = {}
        for key, value in message.items():
            if key in KEPT_KEYS:
                kept[key] = value
            elif key not in EMPTY_KEYS or value not in (None, [], {}):
                raise ApiError(
                    400, f"messages[{number}]: unknown field {key[:40]!r}", param=f"messages[{number}]"
                )
        if kept.get("role") == "developer":  # OpenAI's newer name
            kept["role"] = "system"
        cleaned.append(kept)
    try:
        return read_messages(cleaned)
    except ConversionError as error:
        raise ApiError(400, f"{error.reason}: {error.detail}", param="messages") from None


def _prompt_ids(
    chat: ChatTokenizer, messages: list[Message], tools: list[dict[str, Any]] | None
) -> list[int]:
    try:
        ids = chat.prompt_ids(messages, tools)
        unseen = tools is not None and (chat.template is None or ids == chat.prompt_ids(messages))
    except TemplateRefusal as error:
        raise ApiError(
            400, f"the model's chat template refused: {error.message}"[:400], param="messages"
        ) from None
    except DataError as error:
        raise ApiError(400, error.saw[:400], param="messages") from None
    if unseen:
        raise ApiError(400, "tools: this model's chat template does not show tools to it", param="tools")
    return ids


def _text_ids(served: Served, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        try:
            return list(served.tokenizer.encoder.text_prompt_ids(Completion(prompt, "")))
        except DataError as error:
            raise ApiError(400, error.saw[:400], param="prompt") from None
    if any(not 0 <= index < served.num_rows for index in prompt):
        raise ApiError(400, f"prompt: a token id is not below {served.num_rows}", param="prompt")
    return list(prompt)
