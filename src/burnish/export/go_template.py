"""A chat template in Go's template language: derived from what Jinja renders, and believed if it renders the same.

Ollama reads no Jinja. Many templates are a row of turns, each between two fixed strings; those strings are found with
sentinels as contents, and the result is compared with the template on other conversations:

    {{ if .System }}<|im_start|>system\\n{{ .System }}<|im_end|>\\n{{ end }}{{ range .Messages }}...{{ end }}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from burnish.chat.template import TemplateRefusal
from burnish.types import Message

Render = Callable[[Sequence[Message], bool], str]
"""Messages, and whether the prompt for an answer follows; text. Raises TemplateRefusal."""

S, U, A, V = "S3NT1NEL-SYSTEM", "S3NT1NEL-FIRST", "S3NT1NEL-REPLY", "S3NT1NEL-SECOND"


class NotDerivable(Exception):
    """Why a template has no equal in the row-of-turns form."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A template as strings around contents; `opening` is what stands first where no system prompt is given.

    `system` is what stands around a system prompt, the opening included; None where the template refuses one.
    """

    opening: str
    system: tuple[str, str] | None
    user: tuple[str, str]
    assistant: tuple[str, str]
    prompt: str

    def render(self, messages: Sequence[Message]) -> str:
        """What the Go template makes of messages, the prompt for an answer included."""
        first = messages[0] if messages and messages[0]["role"] == "system" else None
        if first is None:
            text = self.opening
        elif self.system is None:
            raise NotDerivable("it refuses a system prompt")
        else:
            text = self.system[0] + first["content"] + self.system[1]
        for message in messages[first is not None :]:
            before, after = self.user if message["role"] == "user" else self.assistant
            text += before + message["content"] + after
        return text + self.prompt

    def without(self, first: str) -> Turns:
        """The same without a token at the very beginning, which a server puts there by itself."""
        system = self.system and (self.system[0].removeprefix(first), self.system[1])
        return replace(self, opening=self.opening.removeprefix(first), system=system)

    def go(self) -> str:
        """The same in Go's template language, as a Modelfile's TEMPLATE has it."""
        if '"""' in "".join((self.opening, *(self.system or ()), *self.user, *self.assistant, self.prompt)):
            raise NotDerivable('it writes """, which ends a TEMPLATE in a Modelfile')
        system = _written(self.opening)
        if self.system:
            before, after = map(_written, self.system)
            system = (
                f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{system}{{{{ end }}}}"
            )
        user, assistant = (
            f"{_written(before)}{{{{ .Content }}}}{_written(after)}"
            for before, after in (self.user, self.assistant)
        )
        return (
            f'{system}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{user}'
            f'{{{{ else if eq .Role "assistant" }}}}{assistant}{{{{ end }}}}{{{{ end }}}}{_written(self.prompt)}'
        )


def _written(text: str) -> str:
    """Text that Go would read as an action, as an action that writes it."""
    return text.replace("{{", '{{ "{{" }}')


def derive(render: Render) -> Turns:
    """The template as a row of turns; NotDerivable, with the reason, where it is something else."""
    try:
        turns = _found(render)
    except TemplateRefusal as error:
        raise NotDerivable(f"it refuses a plain conversation: {error.message}") from None
    for messages in _others():
        has_system = messages[0]["role"] == "system"
        if has_system and turns.system is None:
            continue
        try:
            rendered = render(messages, True)
        except TemplateRefusal as error:
            raise NotDerivable(f"it refuses turns that alternate: {error.message}") from None
        if turns.render(messages) != rendered:
            raise NotDerivable("it does more than put fixed strings around each turn")
    return turns


def _found(render: Render) -> Turns:
    ask, reply, again = _message("user", U), _message("assistant", A), _message("user", V)
    told = render([ask, reply, again], True)
    opened, between, _, end = _cut(told, U, A, V)
    after_user = _after(render([ask, reply, again], False), V)
    after_reply = _after(render([ask, reply], False), A)
    if not end.startswith(after_user) or not between.startswith(after_user):
        raise NotDerivable("what follows a user's turn depends on what comes next")
    middle = _cut(told, A, V)[1]
    if not middle.startswith(after_reply):
        raise NotDerivable("what follows a reply depends on what comes next")
    before_user = middle[len(after_reply) :]
    if not opened.endswith(before_user):
        raise NotDerivable("the first user turn begins otherwise than later ones")
    return Turns(
        opening=opened[: len(opened) - len(before_user)],
        system=_system(render, before_user),
        user=(before_user, after_user),
        assistant=(between[len(after_user) :], after_reply),
        prompt=end[len(after_user) :],
    )


def _system(render: Render, before_user: str) -> tuple[str, str] | None:
    try:
        told = render([_message("system", S), _message("user", U)], True)
    except TemplateRefusal:
        return None
    if told.count(S) != 1 or told.index(S) > told.index(U):
        raise NotDerivable("the system prompt does not stand once before the first turn")
    before, between, _ = _cut(told, S, U)
    if not between.endswith(before_user):
        raise NotDerivable("the first user turn begins otherwise after a system prompt")
    return before, between[: len(between) - len(before_user)]


def _cut(text: str, *marks: str) -> list[str]:
    """The parts of a text between marks that each stand in it once, in this order."""
    parts = []
    for mark in marks:
        if text.count(mark) != 1:
            raise NotDerivable("it writes a message's content more or less than once")
        before, _, text = text.partition(mark)
        parts.append(before)
    return [*parts, text]


def _after(text: str, mark: str) -> str:
    return _cut(text, mark)[1]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _others() -> list[list[Message]]:
    """Conversations unlike those that the strings were found with."""
    system, ask = _message("system", "Be brief."), _message("user", "Why?\n\n- a\n- b")
    reply, more = _message("assistant", "Because {of} it."), _message("user", "日本語 <b>?")
    return [[ask], [system, ask], [ask, reply, more], [system, ask, reply, more, reply, ask]]
