"""A record of a known format becomes the content of a row.

messages           {"messages": [{"role", "content"}...], "tools": [...]}      -> Conversation
sharegpt           {"conversations": [{"from", "value"}...], "system": "..."}  -> Conversation
alpaca             {"instruction", "input", "output", "history": [[u, a]...]}  -> Conversation
prompt-completion  {"prompt": "2+2=", "completion": "4"}, to the character     -> Completion
                   {"prompt": [messages], "completion": [messages]}            -> Conversation
text               {"text": "..."}                                             -> Document
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from burnish.data.detect import (
    CONTEXT_COLUMNS,
    NEEDS,
    REPLY_COLUMNS,
    TURN_COLUMNS,
    USER_COLUMNS,
    Detection,
    claims,
    detect_format,
    first_column,
)
from burnish.data.messages import read_messages, read_sharegpt, require_reply
from burnish.data.reject import ConversionError, Reason, Record, show
from burnish.data.tools import read_tools
from burnish.types import Completion, Content, Conversation, Document, Message

__all__ = ["Detection", "detect_format", "to_content"]


def to_content(record: Record, format: str) -> Content:
    """Convert one record, or raise ConversionError saying why it is no row of that format."""
    try:
        return _CONVERTERS[format](record)
    except ConversionError:
        # A ShareGPT row in a file of messages: "missing field" would be true, and no help.
        others = claims(record)
        if not others or format in others:
            raise
        other = next(iter(others))
        detail = f"{others[other]}; this source is read as {format}, and one source has one format"
        raise ConversionError(Reason.WRONG_FORMAT, detail) from None


def _from_messages(record: Record) -> Conversation:
    """OpenAI's format; `conversations` is read too, for files that keep {role, content} there."""
    column = _required(record, TURN_COLUMNS, "messages")
    messages = read_messages(record[column], column=column)
    require_reply(messages)
    return _conversation(messages, record)


def _from_sharegpt(record: Record) -> Conversation:
    """ShareGPT's format; a top-level `system` becomes the first message."""
    column = _required(record, TURN_COLUMNS[::-1], "sharegpt")
    messages = read_sharegpt(record[column], column=column)
    if system := _optional(record, "system"):
        if messages and messages[0]["role"] == "system":
            detail = f"the system prompt stands both in 'system' {show(system)} and in the first turn"
            raise ConversionError(Reason.WRONG_FORMAT, detail)
        messages.insert(0, {"role": "system", "content": system})
    require_reply(messages)
    return _conversation(messages, record)


def _from_alpaca(record: Record) -> Conversation:
    """Alpaca's format: the user says the instruction, a blank line, and the input if there is one."""
    user = _string(record, _required(record, USER_COLUMNS, "alpaca"))
    column = _required(record, REPLY_COLUMNS, "alpaca")
    reply = _string(record, column)
    if reply == "":
        raise ConversionError(Reason.EMPTY_REPLY, f"column {column!r} is ''")
    context = first_column(record, CONTEXT_COLUMNS)
    # {"instruction": "Translate.", "input": "Guten Tag"} -> "Translate.\n\nGuten Tag"
    given = _optional(record, context) if context else ""
    if given:
        user = f"{user}\n\n{given}"
    messages = []
    if system := _optional(record, "system"):
        messages.append({"role": "system", "content": system})
    if record.get("history") is not None:
        messages += _history(record["history"])
    messages += [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
    return Conversation(messages)


def _history(pairs: Any) -> list[Message]:
    """Alpaca's earlier rounds, `[[user, assistant], ...]`, as messages."""
    messages: list[Message] = []
    if not isinstance(pairs, list):
        raise ConversionError(Reason.WRONG_FORMAT, f"history is {show(pairs)}, not a list of pairs")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise ConversionError(Reason.WRONG_FORMAT, f"history holds {show(pair)}, not [user, assistant]")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return messages


def _from_prompt_completion(record: Record) -> Completion | Conversation:
    """Two texts, to the character; or two lists of messages, of which only the second is graded."""
    prompt = record[_required(record, ("prompt",), "prompt-completion")]
    completion = record[_required(record, ("completion",), "prompt-completion")]
    if not (isinstance(prompt, list) and isinstance(completion, list)):
        texts = Completion(_string(record, "prompt"), _string(record, "completion"))
        if texts.completion == "":
            raise ConversionError(Reason.EMPTY_REPLY, f"the completion of {show(texts.prompt)} is ''")
        return texts
    context = read_messages(prompt, column="prompt")
    replies = read_messages(completion, column="completion")
    require_reply(replies)
    # The prompt's own replies are context: [user, assistant, user] + [assistant] grades the last only.
    ungraded = [
        {**message, "train": False} if message["role"] == "assistant" else message for message in context
    ]
    return _conversation(ungraded + replies, record)


def _conversation(messages: list[Message], record: Record) -> Conversation:
    """Messages with what the row offers beside them: tools, documents, variables for its template alone."""
    documents = record.get("documents")
    if not (
        documents is None or (isinstance(documents, list) and all(isinstance(d, dict) for d in documents))
    ):
        raise ConversionError(Reason.WRONG_FORMAT, f"documents is {show(documents)}, not a list of objects")
    variables = record.get("chat_template_kwargs")
    if not (variables is None or isinstance(variables, dict)):
        raise ConversionError(
            Reason.WRONG_FORMAT, f"chat_template_kwargs is {show(variables)}, not an object"
        )
    reserved = {"messages", "tools", "documents", "add_generation_prompt"} & (variables or {}).keys()
    if reserved:
        detail = f"chat_template_kwargs names {', '.join(sorted(reserved))}, which burnish itself gives"
        raise ConversionError(Reason.WRONG_FORMAT, detail)
    # Arrow fills what one row has with nulls in all the others.
    given = {key: value for key, value in (variables or {}).items() if value is not None}
    return Conversation(messages, read_tools(record.get("tools")), documents or None, given or None)


def _from_text(record: Record) -> Document:
    """A plain document."""
    text = _string(record, _required(record, ("text",), "text"))
    if text == "":
        raise ConversionError(Reason.EMPTY_TEXT, "the text is ''")
    return Document(text)


_CONVERTERS: dict[str, Callable[[Record], Content]] = {
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
    "alpaca": _from_alpaca,
    "prompt-completion": _from_prompt_completion,
    "text": _from_text,
}


def _required(record: Record, names: tuple[str, ...], format: str) -> str:
    """The first of the names that the record has as a column."""
    column = first_column(record, names)
    if column is None:
        detail = f"the columns are {show(list(record))}; {format} needs {NEEDS[format]}"
        raise ConversionError(Reason.MISSING_FIELD, detail)
    return column


def _string(record: Record, column: str) -> str:
    """The column's text; null and every other type are refused."""
    value = record[column]
    if isinstance(value, str):
        return value
    if value is None:
        raise ConversionError(Reason.NULL_CONTENT, f"column {column!r} is null")
    raise ConversionError(
        Reason.NON_STRING, f"column {column!r} is {show(value)} of type {type(value).__name__}"
    )


def _optional(record: Record, column: str) -> str:
    """The column's text, or '' where the column is missing or null."""
    return "" if record.get(column) is None else _string(record, column)
