"""Tool calls in an answer: read in the ways models write them, held against the tools offered and the calls expected.

Hermes, Qwen    <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>
Mistral         [TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]
Llama 3, bare   {"name": "add", "parameters": {"a": 1}}     or a list of such
Python          add(a=1)     [add(a=1), mul(b=2)]
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.data.reject import ConversionError
from burnish.data.tools import read_calls, read_tools
from burnish.errors import DataError
from burnish.evaluation.match import read_json, same_json

_BLOCK = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_LIST = re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])", re.DOTALL)
_FOLDED = re.compile(r"[ ,./\-_*^'\"]")
TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "float": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "tuple": (list,),
    "object": (dict,),
    "dict": (dict,),
    "null": (type(None),),
}
"""JSON Schema's types, and the two that the Berkeley leaderboard writes in their place."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An expected call; if `accepted`, each argument lists the values that will do, "" where it may be absent."""

    name: str
    arguments: Mapping[str, Any]
    accepted: bool = False


def parse_calls(text: str) -> list[Call]:
    """The calls of an answer (with its control tokens spelled); none where it has none, or one cannot be read."""
    if blocks := _BLOCK.findall(text):
        found = [_of_json(block) for block in blocks]
        return [call for calls in found for call in calls] if all(found) else []
    if listed := _LIST.search(text):
        return _of_json(listed[1])
    bare = re.sub(r"<\|[^|<>]*\|>|</s>", "", text).strip()
    return _of_json(bare) or _of_python(bare)


def _of_json(text: str) -> list[Call]:
    there, value = read_json(text)
    if not there:
        return []
    items = value if isinstance(value, list) else [value]
    found = []
    for item in items:
        if isinstance(item, dict) and "parameters" in item and "arguments" not in item:
            item = {**item, "arguments": item["parameters"]}
        try:
            function = read_calls([item])[0]["function"]
        except ConversionError:
            return []
        found.append(Call(function["name"], function["arguments"]))
    return found


def _of_python(text: str) -> list[Call]:
    """Calls in Python's own spelling, read and never run: names, keywords and literals, nothing else."""
    try:
        tree: ast.expr = ast.parse(text, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
        return [_of_node(node) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _of_node(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise ValueError("not a call with named arguments")
    return Call(
        ast.unparse(node.func), {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
    )


def read_wanted(value: object, place: str) -> tuple[Wanted, ...]:
    """Expected calls: `{"name", "arguments"}`, OpenAI's, or the Berkeley leaderboard's `{"add": {"a": [1]}}`."""
    items = value if isinstance(value, list) else [value]
    found = []
    for item in items:
        if isinstance(item, dict) and len(item) == 1 and isinstance(next(iter(item.values())), dict):
            (name, arguments), *_ = item.items()
            if name != "function":
                found.append(Wanted(str(name), arguments, accepted=True))
                continue
        try:
            function = read_calls([item])[0]["function"]
        except ConversionError as error:
            raise DataError(
                f"{place}: expected call {str(item)[:120]}: {error.detail}",
                rule='an expected call is {"name": ..., "arguments": {...}}, or a list of such',
                remedy="correct `expected` of that row",
            ) from None
        found.append(Wanted(function["name"], function["arguments"]))
    return tuple(found)


def offered(tools: object, place: str) -> list[dict[str, Any]]:
    """The functions of a row's tools by schema; DataError where a tool has no name."""
    try:
        return [tool["function"] for tool in read_tools(tools) or []]
    except ConversionError as error:
        raise DataError(
            f"{place}: {error.detail}", rule="a tool is a JSON schema with a name", remedy="correct `tools`"
        ) from None


def are_valid(calls: Sequence[Call], functions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there are calls, each of an offered function, with arguments that its schema allows."""
    by_name = {function["name"]: function.get("parameters") or {} for function in functions}
    return bool(calls) and all(
        call.name in by_name and _fits(dict(call.arguments), {"type": "object", **by_name[call.name]})
        for call in calls
    )


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Type, enum, required and known properties, items: what tools' schemas say in practice."""
    kinds = schema.get("type", [])
    known = [TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind in TYPES]
    if known and not any(
        isinstance(value, kind) and (bool in kind or not isinstance(value, bool)) for kind in known
    ):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return all(_fits(item, schema["items"]) for item in value)
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return True
    required = schema.get("required") or []
    if any(name not in value for name in required):
        return False
    more = bool(schema.get("additionalProperties", False))
    return all(_fits(item, properties[name]) if name in properties else more for name, item in value.items())


def names_match(calls: Sequence[Call], wanted: Sequence[Wanted]) -> bool:
    """Whether the same functions are called, each as often, in any order."""
    return sorted(call.name for call in calls) == sorted(one.name for one in wanted)


def arguments_match(calls: Sequence[Call], wanted: Sequence[Wanted]) -> bool:
    """Whether the calls are the expected ones, name and arguments, in any order."""
    left = list(calls)
    for one in wanted:
        found = next((call for call in left if _is(call, one)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _is(call: Call, wanted: Wanted) -> bool:
    if call.name != wanted.name:
        return False
    if not wanted.accepted:
        return same_json(dict(call.arguments), dict(wanted.arguments))
    if not call.arguments.keys() <= wanted.arguments.keys():
        return False
    return all(_accepts(call.arguments, name, values) for name, values in wanted.arguments.items())


def _accepts(given: Mapping[str, Any], name: str, values: Any) -> bool:
    if name not in given:
        return "" in values
    return any(same_json(_folded(given[name]), _folded(value)) for value in values)


def _folded(value: Any) -> Any:
    """As the leaderboard compares: strings without case, spaces and light punctuation, at any depth."""
    match value:
        case str():
            return _FOLDED.sub("", value).lower()
        case list() | tuple():
            return [_folded(item) for item in value]
        case dict():
            return {key: _folded(item) for key, item in value.items()}
        case _:
            return value
