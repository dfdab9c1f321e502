"""What a chat template does to conversations, found by asking it: the table in docs/masks.md.

    python -m burnish.experiments.masks ../shared/data/chat-templates/templates docs/masks.md
    python -m burnish.experiments.masks my-template.jinja

Each template is given to the embedded base's tokenizer, as `chat_template: FILE.jinja` in a recipe does it, and is
asked to render one conversation of each shape. What comes back is proved by the certificate, or refused.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.chat.certificate import verify
from burnish.chat.encode import Encoder
from burnish.chat.refusal import RowRefused
from burnish.errors import BurnishError, UsageError
from burnish.experiments.entry import enter
from burnish.models.tokenizer import load_chat_tokenizer
from burnish.types import Conversation, Message, Origin, Row

BEGIN, END = "<!-- templates: begin -->", "<!-- templates: end -->"


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _reply(text: str | None, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


SYSTEM: Message = {"role": "system", "content": "Be terse."}
WHY = "It is easy."
INLINE = f"<think>\n{WHY}\n</think>\n\n"
NEXT = [_user("So?"), _reply("No 😀.")]
CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Oslo", "note": 'say "hi"\n'}},
}
RESULT: Message = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "4 °C"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name"}},
            "required": ["city"],
        },
    },
}
CALLED = [_user("Oslo?"), _reply("", tool_calls=[CALL]), RESULT, _reply("4 degrees.")]

SHAPES: dict[str, Conversation] = {
    "one turn": Conversation([_user("Hi there"), _reply("Hello friend.")]),
    "two turns": Conversation([_user("And France?"), _reply("Paris."), *NEXT]),
    "three turns": Conversation([SYSTEM, _user("A?"), _reply("B."), *NEXT, _user("C?"), _reply("D.")]),
    "system": Conversation([SYSTEM, _user("Hi"), _reply("Yes."), *NEXT]),
    "whitespace": Conversation([_user(" Hi \n"), _reply("\n\n yes \n")]),
    "newline first": Conversation([_user("Hi"), _reply("\nthe cat"), _user("And?"), _reply(" .")]),
    "reasoning": Conversation(
        [
            _user("Why?"),
            _reply("Paris.", reasoning_content=WHY),
            _user("So?"),
            _reply("No.", reasoning_content="Hm."),
        ]
    ),
    "inline reasoning": Conversation(
        [_user("Why?"), _reply(INLINE + "Paris."), _user("So?"), _reply(INLINE + "No.")]
    ),
    "tool call": Conversation(CALLED),
    "tools offered": Conversation([SYSTEM, *CALLED], tools=[TOOL]),
    "null content": Conversation([_user("Oslo?"), _reply(None, tool_calls=[CALL]), RESULT, _reply("4.")]),
    "empty reply": Conversation([_user("Hi there"), _reply("")]),
    "emoji": Conversation([_user("👩‍👩‍👧 é?"), _reply("🇳🇴 naïve ﷽")]),
    "forgery": Conversation(
        [_user("Hi <|im_end|></s><|eot_id|><think>"), _reply("Hello <|im_end|></s><|eot_id|> friend.")]
    ),
}
"""One conversation of each shape that data sets have."""


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What a template does: shapes that are graded, views of each, shapes refused and why, what was counted."""

    name: str
    views: dict[str, int]
    refused: dict[str, str]
    counts: Counter[str]
    dated: bool

    @property
    def habits(self) -> list[str]:
        """What the template drops or changes, in words."""
        habits = {
            "earlier reasoning": self.counts["forgotten_reasoning"],
            "whitespace around replies": self.counts["trimmed_replies"],
            "its own prompt (other whitespace, or no reasoning block)": self.counts["loose_prompts"],
        }
        found = [
            f"changes {name}" if "prompt" in name else f"drops {name}" for name, n in habits.items() if n
        ]
        return found + ["prints the date"] * self.dated

    @property
    def verdict(self) -> str:
        """Whether what it renders can be trained exactly."""
        if "one turn" in self.refused:
            return f"refused: {self.refused['one turn']}"
        return "exact" if not self.refused else "exact, or refused"


def facts_of(name: str, encoder: Encoder) -> TemplateFacts:
    """Ask a template for every shape; RowRefused is a finding, a violation would be a mistake of ours."""
    views: dict[str, int] = {}
    refused: dict[str, str] = {}
    before = encoder.counts.copy()
    for number, (shape, conversation) in enumerate(SHAPES.items()):
        row = Row(number, 0, Origin(shape, 1), conversation)
        try:
            examples = encoder.encode(row)
        except RowRefused as refusal:
            refused[shape] = refusal.reason
            continue
        broken = verify(encoder, row, examples)
        if broken:
            raise AssertionError(f"{name}, {shape}: {broken[0]}")
        views[shape] = len(examples)
    dated = encoder.template is not None and encoder.template.is_dated
    return TemplateFacts(name, views, refused, encoder.counts - before, dated)


def table(paths: list[Path]) -> Iterator[str]:
    """The table in Markdown, line by line."""
    yield f"| template | graded of {len(SHAPES)} | views of two turns with reasoning | what it does | verdict |"
    yield "|---|---|---|---|---|"
    for path in paths:
        try:
            tokenizer = load_chat_tokenizer("marble", chat_template=str(path))
        except BurnishError as error:
            yield f"| {path.stem} | 0 | | | {str(error).splitlines()[0]} |"
            continue
        facts = facts_of(path.stem, tokenizer.encoder)
        reasoned = facts.views.get("reasoning") or facts.views.get("inline reasoning")
        yield (
            f"| {facts.name} | {len(facts.views)} | {reasoned or 'refused'} | {'; '.join(facts.habits)} "
            f"| {facts.verdict}{_reasons(facts)} |"
        )


def _reasons(facts: TemplateFacts) -> str:
    """Which shapes are refused, by reason; nothing more to say where all of them are."""
    if "one turn" in facts.refused or not facts.refused:
        return ""
    by_reason: dict[str, list[str]] = {}
    for shape, reason in facts.refused.items():
        by_reason.setdefault(reason.split(":")[0], []).append(shape)
    return ": " + "; ".join(f"{reason} ({', '.join(shapes)})" for reason, shapes in by_reason.items())


def write(paths: list[Path], page: Path) -> None:
    """Put the table between the marks of a page."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise UsageError(
            f"{page} has no {BEGIN} and {END}", rule="the table stands between these", remedy="put them there"
        )
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "\n".join(table(paths))
    page.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a template or a folder of them, or write it into a page."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not 1 <= len(arguments) <= 2:
        raise UsageError(
            f"{len(arguments)} arguments",
            rule="a template or a folder of templates is asked for, and then the page to write into, if any",
            remedy="python -m burnish.experiments.masks my-template.jinja",
        )
    place = Path(arguments[0])
    paths = sorted(place.glob("*.jinja")) if place.is_dir() else [place]
    if len(arguments) > 1:
        write(paths, Path(arguments[1]))
    else:
        for line in table(paths):
            print(line)


if __name__ == "__main__":
    enter(main)
