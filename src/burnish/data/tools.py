"""Tool calls and tool schemas in one canonical shape, whichever way the data spells them.

    {"name": "sum", "arguments": "{\\"a\\": 1}"}                                    flat, a JSON string
    {"type": "function", "function": {"name": "sum", "arguments": {"a": 1}}}      what every row holds

Templates want a dict, a JSON string, or either; the chat floor converts for each. Here there is one.
"""

from __future__ import annotations

from typing import Any

from burnish.data.reject import ConversionError, Reason, show
from burnish.data.strict import parse_json, require_plain


def read_calls(value: Any) -> list[dict[str, Any]]:
    """The calls of one assistant turn, from a list, one object, or either as a JSON string."""
    value = _parsed(value, Reason.BAD_TOOL_CALL)
    calls = value if isinstance(value, list) else [value]
    return [_read_call(call) for call in calls]


def read_tools(value: Any) -> list[dict[str, Any]] | None:
    """The tools that a conversation offers, from a list or a JSON string; none is null, '' or []."""
    if value is None or value in ("", []):
        return None
    tools = _parsed(value, Reason.BAD_TOOLS)
    if not isinstance(tools, list):
        raise ConversionError(Reason.BAD_TOOLS, f"tools is {show(value)}, not a list of tool schemas")
    return [_read_tool(tool) for tool in tools] or None


def _read_call(call: Any) -> dict[str, Any]:
    """One call with its arguments as a dict; `id` is kept, a call that names no arguments has none."""
    if not isinstance(call, dict):
        raise ConversionError(
            Reason.BAD_TOOL_CALL, f"{show(call)} is not an object with a name and arguments"
        )
    # OpenAI nests name and arguments under `function`; Glaive, Hermes and xLAM keep them flat.
    function = call.get("function", call)
    if not isinstance(function, dict) or not _is_name(function.get("name")):
        raise ConversionError(Reason.BAD_TOOL_CALL, f"{show(call)} has no function name")
    name = function["name"]
    # OpenAI's API writes arguments as a string of JSON, templates want the object in it.
    arguments = function.get("arguments")
    if arguments is None:
        arguments = {}
    arguments = _parsed(arguments, Reason.BAD_TOOL_CALL)
    if not isinstance(arguments, dict):
        detail = f"the arguments of {show(name)} are {show(arguments)}, not an object"
        raise ConversionError(Reason.BAD_TOOL_CALL, detail)
    require_plain(arguments, reason=Reason.BAD_TOOL_CALL)
    canonical: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    identity = call.get("id")
    if identity is None:
        return canonical
    if not isinstance(identity, str):
        raise ConversionError(Reason.BAD_TOOL_CALL, f"the id of the call is {show(identity)}, not a string")
    return {"id": identity, **canonical}


def _read_tool(tool: Any) -> dict[str, Any]:
    """One schema inside `{"type": "function", "function": ...}`; its own keys stay as they are."""
    if not isinstance(tool, dict):
        raise ConversionError(Reason.BAD_TOOLS, f"{show(tool)} is not a tool schema")
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not _is_name(function.get("name")):
        raise ConversionError(Reason.BAD_TOOLS, f"{show(tool)} has no function name")
    require_plain(tool, reason=Reason.BAD_TOOLS)
    return tool if "function" in tool else {"type": "function", "function": tool}


def _is_name(value: Any) -> bool:
    """Whether the value can be the name of a function."""
    return isinstance(value, str) and value != ""


def _parsed(value: Any, reason: Reason) -> Any:
    """The value, read as JSON first if it is a string."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value.encode())
    except ConversionError as error:
        raise ConversionError(reason, f"{show(value)}: {error.reason}: {error.detail}") from None
