"""A conversation in the one form in which its template is asked, in training and at inference alike.

{"content": null, "tool_calls": [...]}       -> content ""        20 of 76 templates fail on null, or print "None"
{"arguments": "{\\"city\\": \\"Oslo\\"}"}          -> {"city": "Oslo"}, or back, as the template takes it
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.types import Conversation, Message


def wants_json_arguments(template: ChatTemplate) -> bool:
    """Whether a template takes the arguments of a call as a string of JSON only: DeepSeek-V3 adds them to a string."""
    return not _renders_call(template, {"city": "Oslo"}) and _renders_call(template, '{"city": "Oslo"}')


def canonical(conversation: Conversation, *, json_arguments: bool) -> Conversation:
    """The conversation without nulls beside calls, its calls' arguments in the form that the template takes."""
    if not any(message.get("tool_calls") for message in conversation.messages):
        return conversation
    messages = [_message(message, json_arguments=json_arguments) for message in conversation.messages]
    return replace(conversation, messages=messages)


def _message(message: Message, *, json_arguments: bool) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return message
    content = message.get("content")
    changed = [_call(call, json_arguments=json_arguments) for call in calls]
    return {**message, "content": "" if content is None else content, "tool_calls": changed}


def _call(call: Any, *, json_arguments: bool) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if json_arguments and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif isinstance(arguments, str) and not json_arguments:
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return call
    return {**call, "function": {**function, "arguments": arguments}}


def _renders_call(template: ChatTemplate, arguments: object) -> bool:
    function = {"name": "get_weather", "arguments": arguments}
    call = {"id": "call00001", "type": "function", "function": function}
    question = {"role": "user", "content": "Question"}
    try:
        return "Oslo" in template.render(
            [question, {"role": "assistant", "content": "", "tool_calls": [call]}]
        )
    except TemplateRefusal:
        return False
