"""A conversation before a template: what inference would feed for each turn, and what each reply renders to.

scene.prompt(1)   "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n"
scene.reply(1)    "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello.<|im_end|>\\n", with origins
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from burnish.chat.provenance import OWN, Rendered, Run
from burnish.chat.refusal import RowRefused
from burnish.chat.template import TemplateRefusal
from burnish.types import Conversation, Message


class Renderer(Protocol):
    """What grading needs of a template."""

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as text."""
        ...

    def trace(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> Rendered:
        """The same, with the origin of every character."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """A template and a conversation; RowRefused where the template refuses."""

    template: Renderer
    conversation: Conversation

    @property
    def messages(self) -> list[Message]:
        """All messages."""
        return self.conversation.messages

    def saying(self, index: int, content: str) -> Scene:
        """The same, with another content of one message."""
        messages = list(self.messages)
        messages[index] = {**messages[index], "content": content}
        return replace(self, conversation=replace(self.conversation, messages=messages))

    def prompt(self, index: int) -> str:
        """What inference feeds to have message `index`."""
        with _refused(index):
            return self.template.render(self.messages[:index], **self._rest(), add_generation_prompt=True)

    def traced_prompt(self, index: int) -> Rendered:
        """The same, traced."""
        with _refused(index):
            traced = self.template.trace(self.messages[:index], **self._rest(), add_generation_prompt=True)
        return traced if traced.text == self.prompt(index) else untraced(self.prompt(index))

    def reply(self, index: int) -> Rendered:
        """The conversation up to message `index`, that one included, traced.

        Where the trace is not what the plain render is, to the byte, it counts as lost: the plain one is the truth.
        """
        with _refused(index + 1):
            plain = self.template.render(self.messages[: index + 1], **self._rest())
            traced = self.template.trace(self.messages[: index + 1], **self._rest())
        return traced if traced.text == plain else untraced(plain)

    def after(self, index: int) -> str:
        """The render up to message `index` and one more: the next one, or what could be; "" where it is none."""
        probe: Message = {"role": "user", "content": "Question"}
        if calls := self.messages[index].get("tool_calls"):
            probe = {"role": "tool", "content": "4", "tool_call_id": str(calls[0].get("id", ""))}
        following = self.messages[index + 1 : index + 2] or [probe]
        before = self.reply(index).text
        try:
            with _refused(index + 2):
                text = self.template.render([*self.messages[: index + 1], *following], **self._rest())
        except RowRefused:
            return ""
        return text if text.startswith(before) else ""

    def _rest(self) -> dict[str, Any]:
        given = self.conversation
        return {"tools": given.tools, "documents": given.documents, "variables": given.variables}


def untraced(text: str) -> Rendered:
    """A render of which nothing is known but its text."""
    return Rendered(text, (Run(0, len(text), OWN, 0),) if text else (), ())


@contextmanager
def _refused(num_messages: int) -> Iterator[None]:
    try:
        yield
    except TemplateRefusal as error:
        raise RowRefused(f"template refused: {error.message[:120]}", f"{num_messages} messages") from error
