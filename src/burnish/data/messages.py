"""Chat turns as OpenAI's messages, from OpenAI's own shape, typed parts, and ShareGPT.

    {"from": "human", "value": "Hi"}                       -> {"role": "user", "content": "Hi"}
    {"role": "assistant", "content": null, "tool_calls": [...]}      -> content "", calls canonical
    {"role": "assistant", "content": [{"type": "reasoning", "value": "Hm."}, {"type": "text", "value": "A"}]}
                                          -> {"role": ..., "content": "A", "reasoning_content": "Hm."}

Text is never stripped or otherwise changed. Keys that hold null are dropped, and so are lists and
objects under keys that burnish does not know; strings and numbers stay, for a template may read them.
"""

from __future__ import annotations

import math
from typing import Any

from burnish.data.reject import ConversionError, Reason, show
from burnish.data.strict import parse_json
from burnish.data.tools import read_calls
from burnish.types import Message

ROLES = frozenset({"system", "user", "assistant", "tool"})
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def read_messages(turns: Any, *, column: str = "messages") -> list[Message]:
    """Read a list of turns in OpenAI's shape; a JSON string of such a list will do (CSV, Parquet)."""
    messages = []
    for k, turn in enumerate(_listed(turns, column)):
        try:
            messages.append(_read_turn(turn))
        except ConversionError as error:
            raise error.within(f"{column}[{k}]") from None
    return messages


def read_sharegpt(turns: Any, *, column: str = "conversations") -> list[Message]:
    """Read a list of turns in ShareGPT's shape, `{"from": ..., "value": ...}`."""
    messages = []
    for k, turn in enumerate(_listed(turns, column)):
        try:
            messages.append(_read_sharegpt_turn(turn))
        except ConversionError as error:
            raise error.within(f"{column}[{k}]") from None
    return messages


def require_reply(messages: list[Message]) -> None:
    """Refuse a conversation in which the assistant never says anything."""
    if not messages:
        raise ConversionError(Reason.EMPTY_CONVERSATION, "a conversation of 0 messages")
    num_silent = 0
    for message in messages:
        if message["role"] == "assistant":
            # {"content": "", "tool_calls": [...]} is a reply: what is graded there is the call.
            if message["content"] or "tool_calls" in message or message.get("reasoning_content"):
                return
            num_silent += 1
    if num_silent:
        detail = f"the content of {num_silent} assistant turns is '', and none of them calls a tool"
        raise ConversionError(Reason.EMPTY_REPLY, detail)
    roles = ", ".join(message["role"] for message in messages[:6])
    raise ConversionError(Reason.NO_ASSISTANT, f"the roles are {roles}")


def _listed(turns: Any, column: str) -> list[Any]:
    """The turns as a list, parsed first if the whole column is a JSON string."""
    # In a CSV cell or a Parquet string: '[{"role": "user", "content": "Hi"}, ...]'.
    if isinstance(turns, str):
        turns = parse_json(turns.encode())
    if not isinstance(turns, list):
        raise ConversionError(Reason.MISSING_FIELD, f"{column} is {show(turns)}, not a list of turns")
    return turns


def _read_turn(turn: Any) -> Message:
    """One turn; the plain `{"role", "content"}` is by far the commonest and stays the same object."""
    if type(turn) is not dict:
        raise ConversionError(Reason.NOT_OBJECT, f"{show(turn)} is not an object with role and content")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        if "role" not in turn:
            raise ConversionError(Reason.MISSING_FIELD, f"no key 'role'; the keys are {show(list(turn))}")
        raise ConversionError(Reason.UNKNOWN_ROLE, f"role {show(role)}")
    # Nine turns in ten end here; the rest may hold typed parts, calls, weights or nulls.
    if len(turn) == 2 and type(turn.get("content")) is str:
        return turn
    return _read_full_turn(turn, role)


def _read_sharegpt_turn(turn: Any) -> Message:
    """One ShareGPT turn under OpenAI's names; a function call becomes an assistant turn that calls."""
    if type(turn) is not dict:
        raise ConversionError(Reason.NOT_OBJECT, f"{show(turn)} is not an object with from and value")
    speaker = turn.get("from")
    role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        if "from" not in turn:
            raise ConversionError(Reason.MISSING_FIELD, f"no key 'from'; the keys are {show(list(turn))}")
        raise ConversionError(Reason.UNKNOWN_ROLE, f"from {show(speaker)}")
    value = turn.get("value")
    if len(turn) == 2 and type(value) is str and speaker != "function_call":
        return {"role": role, "content": value}
    # {"from": "gpt", "value": "a", "weight": 0} brings its weight along.
    rest = {key: item for key, item in turn.items() if key not in ("from", "value", "role", "content")}
    if speaker == "function_call":
        return _read_full_turn({**rest, "content": None, "tool_calls": value}, role)
    if "value" in turn:
        rest["content"] = value
    return _read_full_turn(rest, role)


def _read_full_turn(turn: Message, role: str) -> Message:
    """A turn with more than a role and a string: typed parts, tool calls, weights, reasoning."""
    message: Message = {"role": role, "content": turn.get("content")}
    for key, value in turn.items():
        if value is not None and key not in ("role", "content"):
            _set_field(message, key, value)
    if isinstance(message["content"], list):
        _unfold_parts(message)
    if "tool_calls" in message and role != "assistant":
        raise ConversionError(Reason.BAD_TOOL_CALL, f"a turn of role {show(role)} calls a tool")
    # A template prints null as the text "None", so null content becomes '' beside a call, or is refused.
    content = message["content"]
    if content is None:
        if "content" not in turn and "tool_calls" not in message:
            raise ConversionError(Reason.MISSING_FIELD, f"no content; the keys are {show(list(turn))}")
        if "tool_calls" not in message:
            raise ConversionError(
                Reason.NULL_CONTENT, f"content null on a turn of role {show(role)}, without tool_calls"
            )
        message["content"] = ""
    elif not isinstance(content, str):
        raise ConversionError(Reason.NON_STRING, f"content {show(content)} of type {type(content).__name__}")
    return message


def _set_field(message: Message, key: str, value: Any) -> None:
    """Set one key of a message besides role and content, checked by what it means."""
    if key == "tool_calls":
        # Exporters write `"tool_calls": []` on every turn; an empty list is no call.
        if value not in ([], ""):
            message[key] = read_calls(value)
    elif key in ("weight", "loss_weight"):
        if "weight" in message:
            detail = f"weight {message['weight']} and loss_weight {show(value)} are both given"
            raise ConversionError(Reason.BAD_WEIGHT, detail)
        message["weight"] = _read_weight(key, value)
    elif key == "train":
        if not isinstance(value, bool):
            raise ConversionError(Reason.BAD_TRAIN_FLAG, f"train {show(value)} is neither true nor false")
        message[key] = value
    elif key in ("name", "tool_call_id", "reasoning_content"):
        if not isinstance(value, str):
            raise ConversionError(Reason.NON_STRING, f"{key} {show(value)} of type {type(value).__name__}")
        message[key] = value
    elif isinstance(value, str | int | float):
        message[key] = value


def _read_weight(key: str, value: Any) -> int | float:
    """A turn's weight: any finite number, but no boolean, whose meaning `train` has."""
    # bool is an int to Python: without the first test, true would pass for 1.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConversionError(Reason.BAD_WEIGHT, f"{key} {show(value)} is not a finite number")
    return value


def _unfold_parts(message: Message) -> None:
    """Join the text parts of a content list; reasoning and calls move to the keys they have elsewhere."""
    found: dict[str, list[Any]] = {"text": [], "reasoning": [], "tool_call": []}
    untrained: list[tuple[int, int]] = []
    length = 0
    for part in message["content"]:
        kind, value = _read_part(part)
        found[kind].append(value)
        if kind == "text":
            # {"type": "text", "text": "Sure: ", "train": false}: said, and not taught.
            if not _is_trained(part) and value:
                untrained.append((length, length + len(value)))
            length += len(value)
    message["content"] = "".join(found["text"])
    if untrained and message["role"] == "assistant":
        message["untrained"] = untrained
    if found["reasoning"]:
        if "reasoning_content" in message:
            detail = f"reasoning in a part and in reasoning_content {show(message['reasoning_content'])}"
            raise ConversionError(Reason.UNKNOWN_PART, detail)
        message["reasoning_content"] = "".join(found["reasoning"])
    if found["tool_call"]:
        calls = [call for value in found["tool_call"] for call in read_calls(value)]
        message["tool_calls"] = [*message.get("tool_calls", []), *calls]


def _is_trained(part: dict[str, Any]) -> bool:
    """Whether a part teaches: `train: false` and `weight: 0` say no."""
    train = part.get("train")
    if train is not None and not isinstance(train, bool):
        raise ConversionError(Reason.BAD_TRAIN_FLAG, f"train {show(train)} is neither true nor false")
    weight = part.get("weight")
    return train is not False and (weight is None or _read_weight("weight", weight) != 0)


def _read_part(part: Any) -> tuple[str, Any]:
    """A part's kind and value: OpenAI keeps the text under `text`, LLaMA-Factory under `value`."""
    if isinstance(part, dict) and isinstance(part.get("type"), str):
        kind, value = part["type"], part.get("text", part.get("value"))
        # image_url, input_image, image: the row is about something that the model will not see.
        if "image" in kind:
            raise ConversionError(Reason.IMAGE, f"a content part of type {show(kind)}")
        if kind in ("text", "reasoning") and isinstance(value, str):
            return kind, value
        if kind == "tool_call" and value is not None:
            return kind, value
    raise ConversionError(Reason.UNKNOWN_PART, f"content part {show(part)}")
