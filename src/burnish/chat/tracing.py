"""A chat template compiled so that its render says where each character came from.

The same source, the same sandbox, the same variables, with traced strings in the messages. Whoever uses the result
compares its text with the plain render, so nothing here has to be believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.visitor
from jinja2.sandbox import ImmutableSandboxedEnvironment

from burnish.chat.provenance import Leaf, Rendered, Traced, join, runs_of, to_json
from burnish.types import REASONING_KEYS, Message

TOOLS = -1
"""The message number of text that comes from the tools or documents offered, not from a message."""

# A template switches on these: {% if message.role == 'user' %} writes nothing of them that is the user's.
_STRUCTURE = frozenset({"role", "type"})

Renders = Callable[[Sequence[Message], Any, Any], str]


class Tracer:
    """A template's source, compiled in a copy of `environment` that keeps track of origins."""

    def __init__(self, source: str, environment: ImmutableSandboxedEnvironment) -> None:
        tracing = environment.overlay()
        tracing.__class__ = _TracingEnvironment
        assert isinstance(tracing, _TracingEnvironment)
        tracing.trace_filters()
        # `a ~ b` is compiled to a join of plain strings; as a filter it goes through ours.
        self._template = tracing.from_string(_Joins().visit(tracing.parse(source), tracing))
        self._template.globals = dict(self._template.globals)

    def render(self, variables: Mapping[str, Any], leaves: list[Leaf]) -> Rendered:
        """The render of variables whose strings are traced to `leaves`."""
        text = self._template.render(variables)
        return Rendered(str.__str__(text), runs_of(text), tuple(leaves))


def trace_messages(messages: Sequence[Message], leaves: list[Leaf]) -> list[Message]:
    """The messages as a template sees them, their text traced; each string is entered in `leaves`."""
    return [_traced_message(message, number, leaves) for number, message in enumerate(messages)]


def trace_value(value: Any, field: str, leaves: list[Leaf], *, message: int = TOOLS) -> Any:
    """A value with every string in it traced, its keys too: `arguments.city` is a value, `arguments{city}` a key."""
    if isinstance(value, str):
        return _traced(value, Leaf(message, field, value), leaves)
    if isinstance(value, Mapping):
        return {
            _key(key, field, leaves, message): item
            if key in _STRUCTURE
            else trace_value(item, f"{field}.{key}", leaves, message=message)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [trace_value(item, f"{field}[{k}]", leaves, message=message) for k, item in enumerate(value)]
    return value


def _key(key: Any, field: str, leaves: list[Leaf], message: int) -> Any:
    if not isinstance(key, str) or ".arguments" not in field:
        return key
    return _traced(key, Leaf(message, f"{field}{{{key}}}", key), leaves)


def _traced_message(message: Message, number: int, leaves: list[Leaf]) -> Message:
    traced: Message = {}
    reasoning: Any = None
    for key, value in message.items():
        if key in REASONING_KEYS and isinstance(value, str):
            # One text under three names (see `template._as_seen`) is one leaf.
            if reasoning is None or reasoning != value:
                reasoning = _traced(value, Leaf(number, "reasoning", value), leaves)
            traced[key] = reasoning
        elif key in _STRUCTURE:
            traced[key] = value
        else:
            traced[key] = trace_value(value, key, leaves, message=number)
    return traced


def _traced(text: str, leaf: Leaf, leaves: list[Leaf]) -> str:
    if not text:
        return text
    leaves.append(leaf)
    return Traced.of(text, leaf=len(leaves) - 1)


class _TracingEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox with the few operations replaced in which a plain string would swallow a traced one."""

    concat = staticmethod(lambda parts: join("", parts))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`', '.join(traced)` and its like: a method of a plain string is taken from a traced one."""
        return super().getattr(Traced(obj) if type(obj) is str else obj, attribute)

    def trace_filters(self) -> None:
        """Give `join`, `replace`, `tojson` and `safe` in a form that keeps track."""
        plain_json = self.filters["tojson"]
        self.filters = {
            **self.filters,
            "join": _join,
            "replace": _replace,
            # Nothing is escaped in a chat template, so "safe" marks nothing that is ever looked at.
            "safe": lambda value: value,
            "tojson": lambda value, *args, **options: to_json(
                value, lambda part: str(plain_json(part, *args, **options))
            ),
        }


@jinja2.pass_environment
def _join(
    environment: jinja2.Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    if attribute is not None:
        value = map(jinja2.filters.make_attrgetter(environment, attribute), value)
    return join(str(d), [str(item) for item in value])


def _replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
    return Traced(str(s), None if type(s) is not Traced else s._pieces).replace(
        str(old), str(new), -1 if count is None else count
    )


class _Joins(jinja2.visitor.NodeTransformer):
    """Turns `a ~ b ~ c` into `[a, b, c] | join`, which is what it means."""

    def visit_Concat(self, node: jinja2.nodes.Concat, environment: jinja2.Environment) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node, environment)
        joined = jinja2.nodes.Filter(
            jinja2.nodes.List(node.nodes), "join", [], [], None, None, lineno=node.lineno
        )
        return joined.set_environment(environment)
