"""A conversation before a template: what inference would feed for each turn, and what each reply renders to.

scene.prompt(1)   "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n"
scene.reply(1)    "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello.<|im_end|>\\n", with origins
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from burnish.chat.provenance import OWN, Rendered, Run
from burnish.chat.refusal import RowRefused
from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.types import Conversation, Message


@dataclass(frozen=True, slots=True)
class Scene:
    """A template and a conversation; RowRefused where the template refuses."""

    template: ChatTemplate
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

    def traced_prompt(self, index: int, plain: str) -> Rendered:
        """The same, traced, where `plain` is what `prompt` gave."""
        with _refused(index):
            return _as_rendered(
                plain, self.template.trace(self.messages[:index], **self._rest(), add_generation_prompt=True)
            )

    def reply(self, index: int) -> Rendered:
        """The conversation up to message `index`, that one included, traced."""
        with _refused(index + 1):
            plain = self.template.render(self.messages[: index + 1], **self._rest())
            return _as_rendered(plain, self.template.trace(self.messages[: index + 1], **self._rest()))

    def after(self, index: int, reply: str) -> str:
        """What follows `reply`, the render up to message `index`, where one more speaks; "" where it is rewritten.

        That one is the next message, or what could be.
        """
        probe: Message = {"role": "user", "content": "Question"}
        if calls := self.messages[index].get("tool_calls"):
            probe = {"role": "tool", "content": "4", "tool_call_id": str(calls[0].get("id", ""))}
        following = self.messages[index + 1 : index + 2] or [probe]
        try:
            text = self.template.render([*self.messages[: index + 1], *following], **self._rest())
        except TemplateRefusal:
            return ""
        return text.removeprefix(reply) if text.startswith(reply) else ""

    def _rest(self) -> dict[str, Any]:
        given = self.conversation
        return {"tools": given.tools, "documents": given.documents, "variables": given.variables}


def _as_rendered(plain: str, traced: Rendered) -> Rendered:
    """The trace of a render; where it is another text, to the byte, it counts as lost: the plain one is the truth."""
    if traced.text == plain:
        return traced
    return Rendered(plain, (Run(0, len(plain), OWN, 0),) if plain else (), ())


@contextmanager
def _refused(num_messages: int) -> Iterator[None]:
    try:
        yield
    except TemplateRefusal as error:
        raise RowRefused(f"template refused: {error.message[:120]}", f"{num_messages} messages") from error
