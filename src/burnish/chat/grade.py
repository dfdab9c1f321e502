"""Which characters of a rendered conversation teach, found by rendering it twice.

    context     render(messages[:i], add_generation_prompt=True)     what inference feeds for turn i
    full        render(messages[:i + 1])                             the same, with the reply
    completion  full minus context, ended right after the stop token of the turn

    context     "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    completion  "Hello.<|im_end|>"                                   the newline after it is no one's

A row whose render does not have this form is refused with a reason, never guessed at. The functions know
a template only by its `render`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from burnish.chat.template import TemplateRefusal
from burnish.errors import DataError
from burnish.types import Conversation, Message

TrainOn = Literal["all", "last"]

_TAG = re.compile(r"</?\w+>")


class Renderer(Protocol):
    """What grading needs of a template."""

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as text."""
        ...


class RowRefused(DataError):
    """This row cannot be graded: `reason` in a few countable words, `detail` with what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(
            f"{reason}: {detail}",
            rule="what is graded must follow exactly from the template, or the row is not trained on",
            remedy="correct the row or the template, or train without it: on_bad_row: drop",
        )
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Turn:
    """One trained assistant message: what inference feeds before it, and the text it must then produce.

    `completion` ends with `stop`, the one control token that ends the turn.
    """

    index: int
    context: str
    completion: str
    stop: str
    weight: float


@dataclass(frozen=True, slots=True)
class Stops:
    """The control tokens of a tokenizer as a pattern, and those of them known to end a turn."""

    controls: re.Pattern[str]
    known: frozenset[str]

    def first(self, text: str, start: int) -> tuple[int, str] | None:
        """Where the turn ends in `text`, at or after `start`: the stop token's end, and the stop token.

        A tool call may end with a token of its own (`<|call|>`, `<|eom_id|>`), which the probe has not
        seen: the last control token of the turn is then its end.
        """
        # Cohere: "Hi.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>" goes on to the second, which is known;
        # gpt-oss: "...{}<|call|>" holds no known one, and ends with its last.
        last: re.Match[str] | None = None
        for last in self.controls.finditer(text, start):
            if last[0] in self.known:
                break
        return (last.end(), last[0]) if last else None


def find_stops(template: Renderer, controls: re.Pattern[str], eos_token: str) -> Stops:
    """Ask the template which control token ends a turn, by rendering a reply with and without a next turn.

        ... REPLY <|end|> \n <|endoftext|>          the last turn of a Phi-3 conversation
        ... REPLY <|end|> \n <|user|> \n Next...    the same turn, earlier in one

    What both share after the reply ends the turn. Where they share nothing (gpt-oss ends its last turn with
    `<|return|>`, earlier ones with `<|end|>`), the last turn's own end counts: it is what inference meets.
    """
    question, reply = {"role": "user", "content": "Question"}, {"role": "assistant", "content": "R3PLY"}
    known = {eos_token}
    try:
        alone = template.render([question, reply]).partition("R3PLY")[2]
        followed = template.render([question, reply, question]).partition("R3PLY")[2]
        prompt = template.render([question], add_generation_prompt=True)
        asked = template.render([question])
    except TemplateRefusal:
        return Stops(controls, frozenset(known))
    # Command-A closes a turn and opens the next header at once: what opens a header ends nothing.
    opening = set(Counter(controls.findall(prompt)) - Counter(controls.findall(asked)))
    opening.update(controls.findall(asked.partition("Question")[0]))
    shared = controls.findall(_shared_start(alone, followed))
    own = controls.findall(alone)
    closing = [token for token in shared[::-1] + own if token not in opening]
    # From the last shared one back: `<|END_RESPONSE|>` stands before the token that inference stops at.
    if eos_token not in shared:
        known.update(closing[:1])
    return Stops(controls, frozenset(known))


def grade(
    template: Renderer, conversation: Conversation, *, stops: Stops, train_on: TrainOn = "all"
) -> list[Turn]:
    """The trained turns of a conversation, in order; empty where nothing is to be trained.

    Raises RowRefused where one of them cannot be graded exactly.
    """
    messages, tools = conversation.messages, conversation.tools
    turns: list[Turn] = []
    for index, weight in trained_turns(messages, train_on=train_on):
        if index == 0:
            raise RowRefused("no prompt before the reply", "the conversation opens with the assistant")
        if messages[index].get("content") is None and not messages[index].get("tool_calls"):
            raise RowRefused("reply is null", f"message {index}: no content and no tool calls")
        context = _render(template, messages[:index], tools, add_generation_prompt=True)
        full = _render(template, messages[: index + 1], tools, add_generation_prompt=False)
        _check_history(messages[:index], context)
        # rest: "Hello.<|im_end|>\n"; the newline behind the stop token is never generated, and not graded.
        rest = _after_prompt(context, full, messages[index - 1])
        if rest is None:
            shared = max(0, len(_shared_start(context, full)) - 20)
            raise RowRefused(
                "template does not extend its own prompt",
                f"message {index}: the prompt ends {context[shared:]!r} where the render "
                f"of the reply has {full[shared : shared + 60]!r}",
            )
        end = stops.first(rest, _end_of_reply(messages[index], rest, index=index))
        if end is None:
            raise RowRefused(
                "no stop token after the reply",
                f"message {index}: the render ends {rest[-40:]!r}, with no control token of the tokenizer",
            )
        turns.append(Turn(index, context, rest[: end[0]], end[1], weight))
    return turns


def trained_turns(messages: Sequence[Message], *, train_on: TrainOn) -> list[tuple[int, float]]:
    """The indices and weights of the assistant messages that teach: weight 0 or `train: false` is context."""
    replies = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    if train_on == "last":
        replies = replies[-1:]
    weighted = [(index, _weight(messages[index], index)) for index in replies]
    return [(index, weight) for index, weight in weighted if weight != 0.0]


def _weight(message: Message, index: int) -> float:
    """The weight of a message as a number, 0.0 for `train: false`."""
    # {"role": "assistant", "content": "...", "weight": 0.5}: half a turn in the loss, not half of its tokens.
    if message.get("train") is False:
        return 0.0
    weight = message.get("weight")
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise RowRefused("weight is not a number", f"message {index}: weight {weight!r}")
    return float(weight)


def _render(
    template: Renderer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    add_generation_prompt: bool,
) -> str:
    try:
        return template.render(messages, tools, add_generation_prompt=add_generation_prompt)
    except TemplateRefusal as error:
        raise RowRefused(f"template refused: {error.message[:120]}", f"{len(messages)} messages") from error


def _after_prompt(context: str, full: str, asked: Message) -> str | None:
    """What the template renders after the prompt; None where it renders the prompt itself otherwise.

    Mistral-Nemo tells the system message only to a conversation that ends with the user, so `full` lacks it:
    then the reply is what follows the last message and the header after it, if `full` has both just once.

    A template that is indented for reading prints "assistant\\n\\n" as its prompt and "assistant\\nParis." in
    history. Inference feeds the prompt, so the prompt is the context, and the reply begins at its own text.
    """
    if full.startswith(context):
        return full[len(context) :]
    shared = _shared_start(context, full)
    if len(shared) >= len(context.rstrip()):
        return full[len(shared) :].lstrip()
    last = next((text.strip() for _, text in reversed(list(_reply_texts(asked)))), "")
    # last "Hi", context "...Hi[/INST]": the reply is behind "Hi[/INST]" in `full`.
    at = context.rfind(last) if last else -1
    return full.partition(context[at:])[2] if at >= 0 and full.count(context[at:]) == 1 else None


def _end_of_reply(message: Message, rest: str, *, index: int) -> int:
    """Where the reply's own text ends in what the template renders after the prompt."""
    # A reply "t" may be found early, in "<think>": no harm, for what is looked for behind it is a stop token,
    # and none can stand inside a reply, where it would be marked (see `chat.guard`).
    cursor = 0
    for name, text in _reply_texts(message):
        found = _find(rest, text, cursor)
        if found is None:
            raise RowRefused(f"{name} not found in the render", f"message {index}: {text[:60]!r}")
        cursor = found
    return cursor


def _check_history(messages: Sequence[Message], context: str) -> None:
    """Every earlier message is in the prompt, in order; a system message anywhere, for Mistral moves it.

    Of an earlier reply the reasoning may be gone: templates drop it, and inference would not see it either.
    """
    cursor = 0
    for index, message in enumerate(messages):
        role = message.get("role")
        start = 0 if role in ("system", "developer") else cursor
        texts = [text for name, text in _reply_texts(message) if name != "reasoning"]
        for text in texts:
            found = _find(context, text, start)
            # "<think>x</think>A" -> "A": of an earlier reply the last part is enough.
            if found is None and role == "assistant":
                found = _find(context, _TAG.split(text)[-1], start)
            if found is None:
                raise RowRefused(
                    "message lost in the render",
                    f"message {index} ({role}): {text[:60]!r} is not in the prompt",
                )
            start = found
        cursor = max(cursor, start) if role not in ("system", "developer") else cursor


def _reply_texts(message: Message) -> Iterator[tuple[str, str]]:
    """The strings of a message that its render must hold, in the order of templates, with their names."""
    reasoning = next(
        (message[key] for key in ("reasoning_content", "thinking", "reasoning") if message.get(key)), ""
    )
    yield from (("reasoning", text) for text in _leaves(reasoning))
    yield from (("reply", text) for text in _leaves(message.get("content")))
    for call in message.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        yield "tool call", str(function.get("name", ""))
        yield from (("tool call", text) for text in _leaves(function.get("arguments")))


def _leaves(value: object) -> Iterator[str]:
    """Every string inside a value, but for the `type` of a content part."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key != "type":
                yield from _leaves(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _leaves(item)


def _find(text: str, wanted: str, start: int) -> int | None:
    """The end of `wanted` in `text`: as it is, as JSON writes it, or its parts around tags, each trimmed.

    A template that knows reasoning re-wraps it: "<think>why</think>so" -> "<think>\nwhy\n</think>\n\nso".
    """
    wanted = wanted.strip()
    for form in (wanted, json.dumps(wanted, ensure_ascii=False)[1:-1], json.dumps(wanted)[1:-1]):
        at = text.find(form, start)
        if at >= 0:
            return at + len(form)
    parts = _TAG.split(wanted)
    return None if len(parts) == 1 else _find_all(text, parts, start)


def _find_all(text: str, parts: Sequence[str], start: int) -> int | None:
    """The end of the last of `parts`, each found after the one before."""
    cursor: int | None = start
    for part in parts:
        cursor = None if cursor is None else _find(text, part, cursor)
    return cursor


def _shared_start(one: str, other: str) -> str:
    """The longest text that both begin with."""
    pairs = zip(one, other, strict=False)
    length = next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
    return one[:length]
