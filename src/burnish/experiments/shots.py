"""Prompts with worked examples: as turns for a model that has a chat template, as plain text for one that has none.

qa      Q: What is the capital of Peru?        list    - What is the capital of Peru? - Lima
        A: Lima                                        - What is the capital of Chad? -

        Q: What is the capital of Chad?
        A:

A base in plain text has no turn that could end: its answer is what comes before the next line, or before an empty one
where answers have lines of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from burnish.experiments.asking import Asked
from burnish.models.assistant import Answer, Assistant
from burnish.models.generate import num_positions
from burnish.types import Message

LAYOUTS = {
    "qa": ("Q: {prompt}\nA:", " {answer}"),
    "question": ("Question: {prompt}\nAnswer:", " {answer}"),
    "lines": ("{prompt}\n", "{answer}"),
    "list": ("- {prompt} -", " {answer}"),
}
CHAT = "chat"
"""The layout of a model with a chat template: examples are earlier turns."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How examples stand before a question: the layout's name, and what ends an answer in plain text."""

    name: str
    end: str = "\n"

    def prompt_ids(
        self, assistant: Assistant, shots: Sequence[Asked], asked: Asked, *, room: int
    ) -> list[int]:
        """The ids that a model is fed; where they would not fit into `room`, the first examples are left out."""
        for first in range(len(shots) + 1):
            ids = self._ids(assistant, shots[first:], asked)
            if len(ids) <= room or first == len(shots):
                return ids
        return []

    def _ids(self, assistant: Assistant, shots: Sequence[Asked], asked: Asked) -> list[int]:
        if self.name == CHAT:
            return assistant.tokenizer.prompt_ids(as_turns(shots, asked), asked.tools)
        if self.name == "plain":
            return assistant.tokenizer.prompt_ids(said(asked))
        head, tail = LAYOUTS[self.name]
        between = "\n\n" if self.end == "\n\n" or "\n" in head else "\n"
        told = [
            head.replace("{prompt}", said(shot)) + tail.replace("{answer}", shot.expected.strip())
            for shot in shots
        ]
        return assistant.tokenizer.prompt_ids(between.join([*told, head.replace("{prompt}", said(asked))]))

    def ended(self, assistant: Assistant, answer: Answer) -> Answer:
        """The answer as far as it goes: in plain text, up to the line's end, and then it counts as stopped."""
        if self.name == CHAT:
            return answer
        text = answer.text.lstrip(" \n") if self.name == "lines" else answer.text.lstrip(" ")
        cut, mark, _ = text.partition(self.end)
        if not mark:
            return replace(answer, text=text)
        kept = len(assistant.tokenizer.tokenizer(cut + mark)["input_ids"])
        return Answer(cut, "stop", answer.prompt_ids, answer.completion_ids[:kept])


def as_turns(shots: Sequence[Asked], asked: Asked) -> list[Message]:
    """Examples as earlier turns, after the question's own system message; theirs are left out, for there is one."""
    earlier: list[Message] = []
    for shot in shots:
        earlier += [message for message in shot.messages if message["role"] != "system"]
        earlier.append({"role": "assistant", "content": shot.expected})
    system = [message for message in asked.messages if message["role"] == "system"]
    return [*system, *earlier, *(message for message in asked.messages if message["role"] != "system")]


def said(asked: Asked) -> str:
    """What was said before the answer, as plain text."""
    return "\n".join(str(message["content"]) for message in asked.messages)


def end_of(rows: Sequence[Asked]) -> str:
    """What ends an answer in plain text."""
    return "\n\n" if any("\n" in row.expected.strip() for row in rows) else "\n"


def room_of(assistant: Assistant, *, max_new_tokens: int) -> int:
    """How many tokens a prompt may have."""
    return (num_positions(assistant.model.config) or 1 << 30) - max_new_tokens
