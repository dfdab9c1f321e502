"""The model's own chat template, rendered to the byte as transformers' `apply_chat_template` renders it.

    template = ChatTemplate(CHATML, special_tokens={"eos_token": "<|im_end|>"})
    template.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    -> "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"

A template is code from the hub, so it runs in Jinja's immutable sandbox. Neither transformers nor torch
is imported here.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment

from burnish.chat.provenance import Leaf, Rendered
from burnish.chat.tracing import Tracer, trace_messages, trace_value
from burnish.errors import DataError
from burnish.types import REASONING_KEYS, Message

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The template given to a base model that has none; its two control tokens are CHATML_TOKENS."""

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

OWN_KEYS = frozenset({"weight", "train", "untrained"})
"""The message keys that are burnish's, and that no template sees."""

# What a template can make Python raise: `{{ none + 'a' }}`, `{{ messages[7].content }}`, `{{ 1 / 0 }}`,
# macros that call each other. Each is the template's refusal of this row, never a crash of the run.
_RENDER_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)
_CONTROL = re.compile(r"<[^<>\s]{1,40}>")


class TemplateRefusal(DataError):
    """The template raised on this conversation; `message` is what it said."""

    def __init__(self, message: str) -> None:
        super().__init__(
            f"chat template refused: {message}",
            rule="a conversation must be one that the model's own template renders",
            remedy="correct the row, or train without it: on_bad_row: drop",
        )
        self.message = message


@contextmanager
def _refusing() -> Iterator[None]:
    """Whatever a template raises inside is its refusal of the row."""
    try:
        yield
    except _RaisedByTemplate as error:
        raise TemplateRefusal(str(error.message)) from error
    except _RENDER_ERRORS as error:
        raise TemplateRefusal(f"{type(error).__name__}: {error}") from error


class _RaisedByTemplate(jinja2.TemplateError):
    """What `raise_exception` raises, so that its message can be told from Jinja's own errors."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`: accepted, and without effect on the text.

    It opens a scope, as in transformers: a variable set inside is not seen after it.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a plain set on the instance

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

    def _unchanged(self, caller: Callable[[], str]) -> str:
        return caller()


class _SafeNamespace(jinja2.utils.Namespace):
    """Jinja's namespace, refusing underscore names: they are the usual road out of a sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # `namespace(self=1)` is legal in a template, so no parameter is called self.
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


class _PlainDict:
    """The `dict` of templates: it builds dictionaries, and is not the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """`dict.fromkeys`."""
        return dict.fromkeys(*args, **kwargs)


class ChatTemplate:
    """A compiled chat template with all that its render depends on: special tokens, variables, one date.

    `special_tokens` are the names a tokenizer gives them (`bos_token`, `eos_token`, ...). `date` is what
    `strftime_now` prints, the same for a whole run; `today` is taken once where none is given.
    """

    def __init__(
        self,
        source: str,
        *,
        special_tokens: Mapping[str, Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        date: datetime.date | None = None,
    ) -> None:
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self.date = date or datetime.date.today()
        # A variable may stand for a token: chat_template_kwargs {"eos_token": "<|end|>"} wins.
        self._variables = {**self.special_tokens, **self.chat_template_kwargs}

    def given(self, variables: Mapping[str, Any]) -> ChatTemplate:
        """The same template with more `chat_template_kwargs`."""
        return ChatTemplate(
            self.source,
            special_tokens=self.special_tokens,
            chat_template_kwargs={**self.chat_template_kwargs, **variables},
            date=self.date,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without its compiled form: whoever unpickles it compiles it again."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_compiled", "_tracer")}

    @cached_property
    def _tracer(self) -> Tracer:
        return Tracer(self.source, _environment(self.date))

    @cached_property
    def _compiled(self) -> jinja2.Template:
        # Not before it is used: `{{ 'a' * 10**10 }}` is computed while it is compiled (see `chat.cell`).
        try:
            template = _environment(self.date).from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise DataError(
                f"chat template, line {error.lineno}: {error.message}",
                rule="a chat template is valid Jinja",
                remedy="correct the template, or give another: chat_template: FILE.jinja",
            ) from error
        # Jinja copies these at each render; as the chain that it keeps them in, that took 20 of 30 microseconds.
        template.globals = dict(template.globals)
        return template

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as text; with `add_generation_prompt`, what a model is given to answer.

        `variables` are a row's own (`{"enable_thinking": false}`) and win over `chat_template_kwargs`.
        """
        with _refusing():
            return self._compiled.render(
                messages=[_as_seen(message) for message in messages],
                tools=tools,
                documents=documents,
                add_generation_prompt=add_generation_prompt,
                **{**self._variables, **(variables or {})},
            )

    def trace(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> Rendered:
        """As `render`, with the origin of every character; its text has to be compared with that of `render`."""
        leaves: list[Leaf] = []
        given = {
            "messages": trace_messages([_as_seen(message) for message in messages], leaves),
            "tools": tools if tools is None else trace_value(tools, "tools", leaves),
            "documents": documents if documents is None else trace_value(documents, "documents", leaves),
            "add_generation_prompt": add_generation_prompt,
            **self._variables,
            **(variables or {}),
        }
        with _refusing():
            return self._tracer.render(given, leaves)

    @property
    def is_dated(self) -> bool:
        """Whether the render can hold the date."""
        return "strftime_now" in self.source

    @property
    def sha256(self) -> str:
        """The hash of all that the render depends on besides the messages; of the date only if it is used."""
        parts: dict[str, Any] = {
            "source": self.source,
            "special_tokens": self.special_tokens,
            "chat_template_kwargs": self.chat_template_kwargs,
            "date": self.date.isoformat() if self.is_dated else None,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def spelled_controls(template: ChatTemplate) -> tuple[str | None, list[str]]:
    """The control string that ends a turn, as the template spells it, and all that it spells.

    ChatML: ("<|im_end|>", ["<|im_start|>", "<|im_end|>"]). None where a turn ends in plain text, or the template
    refuses the probe.
    """
    question, reply = {"role": "user", "content": "Question"}, {"role": "assistant", "content": "R3PLY"}
    try:
        whole = template.render([question, reply])
        prompt = template.render([question], add_generation_prompt=True)
    except TemplateRefusal:
        return None, []
    end = _CONTROL.match(whole.partition("R3PLY")[2].lstrip())
    return end and end[0], list(dict.fromkeys(_CONTROL.findall(whole + prompt)))


def _environment(date: datetime.date) -> ImmutableSandboxedEnvironment:
    """Jinja as transformers 5 sets it up, with the clock stopped at `date`."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    # Llama-3.1 prints "Today Date: 26 Jul 2024": trained and served with the same day, or the ids differ.
    midnight = datetime.datetime.combine(date, datetime.time())
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=midnight.strftime,
        dict=_PlainDict(),
        namespace=_SafeNamespace,
    )
    return environment


def _raise_exception(message: str) -> None:
    raise _RaisedByTemplate(message)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a template may not store the name {name!r} in a namespace")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as a model was trained to read it: Jinja's own filter would turn `<` into `\\u003c`."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _as_seen(message: Message) -> Message:
    """The message as a template gets it: without nulls and burnish's keys, its reasoning under every name.

    transformers drops nulls (`"content": None` would print "None") and gives `reasoning` and `thinking` as
    `reasoning_content` too, which is the name that templates read.
    """
    seen = {key: value for key, value in message.items() if value is not None and key not in OWN_KEYS}
    # {"reasoning": "why"} is seen as {"thinking": "why", "reasoning": "why", "reasoning_content": "why"}.
    for key in REASONING_KEYS:
        if key in seen:
            return {"thinking": seen[key], **seen, "reasoning_content": seen[key]}
    return seen
