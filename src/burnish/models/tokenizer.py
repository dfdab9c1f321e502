"""A tokenizer with its chat template: the one place where messages become ids, in training and at inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from burnish.chat.encode import Encoder
from burnish.chat.grade import TrainOn
from burnish.chat.reasoning import Reasoning
from burnish.chat.template import CHATML, ChatTemplate, spelled_controls
from burnish.errors import DataError
from burnish.models.locate import locate
from burnish.types import Message

Prompt = str | Sequence[Message]


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """Messages to ids and ids to text.

    `new_ids` are tokens that the base model has no trained row for; `like` names a token with a trained row that a
    new one does the work of: the end of a turn starts as the end of text, whose place the base knows.
    `template` is None for a base model that is only to continue text: its prompts are plain text.
    """

    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate | None
    encoder: Encoder
    new_ids: tuple[int, ...]
    like: dict[int, int]
    template_origin: str

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def stop_ids(self) -> list[int]:
        """The ids that end an answer: the template's ends of a turn and the end of text."""
        return sorted(self.encoder.stop_ids)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """What inference feeds for a prompt: a string is one user message, or plain text without a template."""
        if self.template is None:
            text = prompt if isinstance(prompt, str) else "\n".join(str(m["content"]) for m in prompt)
            return list(self.tokenizer(text)["input_ids"])
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return self.encoder.prompt_ids(messages)

    def decode_answer(self, ids: Iterable[int]) -> str:
        """An answer as text, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def load_chat_tokenizer(
    name: str,
    *,
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    train_on: TrainOn = "all",
    reasoning: Reasoning = "keep",
    chat: bool = True,
) -> ChatTokenizer:
    """The tokenizer of `name` with its own chat template, or the one in the file `chat_template`.

    With `chat`, a tokenizer without a template gets ChatML and that template's two tokens; without it, it stays
    as it is and prompts are plain text. A template from a file brings the control tokens that the vocabulary lacks.
    """
    tokenizer = _load(name)
    source, origin = _template_source(tokenizer, chat_template)
    given = chat_template is not None or source is None
    if source is None and chat:
        source, origin = CHATML, "ChatML, for the model has no chat template of its own"
    template = None
    new_ids: list[int] = []
    like: dict[int, int] = {}
    if source is not None:
        tokenizer.chat_template = source
        template = ChatTemplate(
            source, special_tokens=_special_tokens(tokenizer), chat_template_kwargs=chat_template_kwargs
        )
        if given:
            new_ids, like = _add_controls(tokenizer, template)
    encoder = Encoder(template, tokenizer, train_on=train_on, reasoning=reasoning)
    # With reasoning off, the template's own switch is part of what it is asked with from now on.
    return ChatTokenizer(tokenizer, encoder.template, encoder, tuple(new_ids), like, origin)


def _load(name: str) -> PreTrainedTokenizerBase:
    directory = locate(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{directory}: {error}",
            rule="a tokenizer directory holds tokenizer.json (or a format that transformers converts to it)",
            remedy="copy the tokenizer again, or name another: tokenizer=DIR",
        ) from error
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
