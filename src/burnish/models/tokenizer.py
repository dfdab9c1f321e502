"""A tokenizer with its chat template: the one place where messages become ids, in training and at inference."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import get_json_schema

from burnish.chat.cell import BoundedTemplate
from burnish.chat.encode import Encoder, EncoderSpec
from burnish.chat.template import CHATML, ChatTemplate, spelled_controls
from burnish.data.reject import ConversionError
from burnish.data.tools import read_calls, read_tools
from burnish.errors import DataError
from burnish.models.foreign import reading
from burnish.models.identity import ChatIdentity, read_identity
from burnish.models.locate import locate
from burnish.types import Message

Prompt = str | Sequence[Message]
Tool = Mapping[str, Any] | Callable[..., Any]
"""A tool that a prompt offers: its JSON schema, or a Python function with types and a docstring."""


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """Messages to ids and ids to text.

    `new_ids` are tokens that the base model has no trained row for; `like` names a token with a trained row that a
    new one does the work of: the end of a turn starts as the end of text, whose place the base knows.
    `template` is None for a base model that is only to continue text: its prompts are plain text. It renders in a
    child process. `unswitched` is the template before the encoder turned its reasoning off, if it did.
    `options` are those of the encoder; `other_stop_ids` were graded elsewhere (see `take_in`).
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate | None
    encoder: Encoder
    new_ids: tuple[int, ...]
    like: dict[int, int]
    template_origin: str
    unswitched: BoundedTemplate | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    other_stop_ids: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def stop_ids(self) -> list[int]:
        """The ids that end an answer: the template's ends of a turn and the end of text."""
        return sorted(self.encoder.stop_ids | self.other_stop_ids)

    @property
    def control_ids(self) -> list[int]:
        """The ids of tokens that the template spells, and of those that end an answer."""
        source = self.template.source if self.template else ""
        spelled = [id for token, id in self.tokenizer.get_added_vocab().items() if token in source]
        return sorted({*spelled, *self.stop_ids})

    @property
    def spec(self) -> EncoderSpec:
        """What a worker builds the same encoder from."""
        backend = self.tokenizer.backend_tokenizer.to_str()
        template = self.unswitched and self.unswitched.plain
        return EncoderSpec(template, backend, str(self.tokenizer.eos_token), **self.options)

    @property
    def identity(self) -> ChatIdentity:
        """What serving must have in common with training."""
        template = self.template
        return ChatIdentity(
            template_sha256=template.sha256 if template else None,
            date=template.date.isoformat() if template and template.is_dated else None,
            chat_template_kwargs=template.chat_template_kwargs if template else {},
            stop_ids=self.stop_ids,
        )

    def take_in(self, stop_ids: Iterable[int], counts: Mapping[str, int]) -> None:
        """Learn what encoders in other processes graded as stop tokens and counted as unusual."""
        self.other_stop_ids.update(stop_ids)
        self.encoder.counts.update(counts)

    def prompt_ids(self, prompt: Prompt, tools: Sequence[Tool] | None = None) -> list[int]:
        """What inference feeds for a prompt: a string is one user message, or plain text without a template."""
        if self.template is None:
            text = prompt if isinstance(prompt, str) else "\n".join(str(m["content"]) for m in prompt)
            return list(self.tokenizer(text)["input_ids"])
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        try:
            asked = [_with_calls(message) for message in messages]
            offered = read_tools([_schema(tool) for tool in tools or ()])
        except ConversionError as error:
            raise DataError(
                f"{error.reason}: {error.detail}",
                rule="tools and tool calls of a prompt have the form that rows have",
                remedy="give a tool as a JSON schema or a Python function, arguments as an object or its JSON",
            ) from None
        return self.encoder.prompt_ids(asked, offered)

    def decode_answer(self, ids: Iterable[int]) -> str:
        """An answer as text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def load_chat_tokenizer(
    name: str,
    *,
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    date: datetime.date | None = None,
    chat: bool = True,
    **options: Any,
) -> ChatTokenizer:
    """The tokenizer of `name` with its own chat template, or the one in the file `chat_template`.

    With `chat`, a tokenizer without a template gets ChatML and that template's two tokens; without it, it stays
    as it is and prompts are plain text. A template from a file brings the control tokens that the vocabulary lacks.
    Of a model that burnish trained, the template must be the one it was trained with, and the date and variables of
    training hold where no others are given. `options` are those of `chat.encode.Encoder`.
    """
    tokenizer = _load(name)
    source, origin = _template_source(tokenizer, chat_template)
    given = chat_template is not None or source is None
    trained = None if given else read_identity(locate(name))
    if trained is not None and source is not None:
        trained.require(
            ChatTemplate(source, special_tokens=_special_tokens(tokenizer), **trained.settings), name
        )
        chat_template_kwargs = chat_template_kwargs or trained.chat_template_kwargs
        date = date or trained.settings["date"]
    if source is None and chat:
        source, origin = CHATML, "ChatML, for the model has no chat template of its own"
    template = None
    new_ids: list[int] = []
    like: dict[int, int] = {}
    if source is not None:
        tokenizer.chat_template = source
        template = BoundedTemplate(
            ChatTemplate(
                source,
                special_tokens=_special_tokens(tokenizer),
                chat_template_kwargs=chat_template_kwargs,
                date=date,
            )
        )
    with template.probed() if template else nullcontext():
        if template and given:
            new_ids, like = _add_controls(tokenizer, template)
        encoder = Encoder(template, tokenizer, **options)
    stops = set(trained.stop_ids) if trained else set()
    # With reasoning off, the template's own switch is part of what it is asked with from now on.
    return ChatTokenizer(
        tokenizer, encoder.template, encoder, tuple(new_ids), like, origin, template, options, stops
    )


def _with_calls(message: Message) -> Message:
    """The message with its tool calls as rows have them: arguments written as a string of JSON become an object."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": read_calls(calls)} if calls else message


def _schema(tool: Tool) -> Any:
    return get_json_schema(tool) if callable(tool) else tool


def _load(name: str) -> PreTrainedTokenizerBase:
    directory = locate(name)
    with reading(
        directory,
        rule="a tokenizer directory holds tokenizer.json (or a format that transformers converts to it)",
        remedy="copy the tokenizer again, or name another: tokenizer=DIR",
    ):
        tokenizer = AutoTokenizer.from_pretrained(directory)
    if not tokenizer.is_fast:
        raise DataError(
            f"{directory}: its tokenizer ({type(tokenizer).__name__}) has no fast form",
            rule="masks need the offsets that only fast tokenizers give",
            remedy="save a fast form with transformers, or name another: tokenizer=DIR",
        )
    return tokenizer


def _template_source(tokenizer: PreTrainedTokenizerBase, file: str | None) -> tuple[str | None, str]:
    if file is not None:
        try:
            return Path(file).read_text(encoding="utf-8"), file
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"chat_template {file!r}: {error}",
                rule="chat_template is the path of a Jinja file in UTF-8",
                remedy="correct the path",
            ) from error
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    return own, "the model's own" if own else "none"


def _add_controls(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate
) -> tuple[list[int], dict[int, int]]:
    """Make tokens of the control strings of a template that is not the model's own, where they are none yet.

    A model's own template is taken as it is: there `<think>` or `<tool_call>` may be meant as plain words.
    Returns the new ids, and which known token the new end of a turn is like.
    """
    end, controls = spelled_controls(template)
    before = tokenizer.get_vocab()
    if end is None or end in tokenizer.get_added_vocab():
        return [], {}
    tokenizer.add_special_tokens({"additional_special_tokens": controls}, replace_extra_special_tokens=False)
    new = [tokenizer.convert_tokens_to_ids(token) for token in controls if token not in before]
    stop = tokenizer.convert_tokens_to_ids(end)
    end_of_text = tokenizer.eos_token_id
    return new, {stop: end_of_text} if stop in new and end_of_text is not None else {}


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
