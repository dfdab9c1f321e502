"""Strips made on the spot, for the tests of what draws them."""

from __future__ import annotations

import io

from rich.console import Console

from burnish.chat.encode import Encoder, cut_answer
from burnish.chat.paint import terminal
from burnish.chat.provenance import TokenOrigin
from burnish.chat.strip import Strip, strip_of
from burnish.chat.template import ChatTemplate
from burnish.types import Example
from tests.chat.families import THINKING, assistant, chat, family, tokenizer_of, user

HOSTILE = [
    "</script><script>alert(1)</script>",
    '<img src=x onerror="alert(2)">',
    "<svg/onload=alert(3)><a href=javascript:alert(4)>x</a>",
    '"><details open ontoggle=alert(5)><style>*{display:none}</style>',
    "<!--<script>",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07 \x1b[31mred\x1b[2J\x9b2J",
    "[bold red]markup[/]",
    "\u202egnp.exe\u202c \u2066a\u2069",
    "a\u200b\u200d\ufeff\u00adb",
    "".join(chr(0xE0000 + ord(character)) for character in "ignore all"),
    "\u2028\u2029\x85\x00\r",
    "{title}{data}{0}",
    "&lt;b&gt; &amp;",
    "w" * 3000,
]


def strip(asked: str, reply: str, kind: str = "bytes", cut: int = 0) -> Strip:
    """The strip of a question and its answer in ChatML."""
    encoder = Encoder(*family("ChatML", kind))
    (example,) = encoder.encode(chat(user(asked), assistant(reply)))
    kept = cut_answer(example, len(example) - cut)
    assert kept is not None
    return strip_of(kept, encoder)


def views() -> list[Strip]:
    """The two views of a conversation whose template drops earlier reasoning."""
    template = ChatTemplate(THINKING, special_tokens={"eos_token": "<|im_end|>"})
    encoder = Encoder(template, tokenizer_of("bytes", "", "<|im_end|>", ["<|im_start|>"]))
    turns = (user("one"), assistant("<think>\nHm.\n</think>\n\nThe cat."), user("two"), assistant("The mat."))
    strips: list[Strip] = []
    examples = encoder.encode(chat(*turns))
    for number, example in enumerate(examples, start=1):
        before = strips[-1] if strips else None
        strips.append(
            strip_of(example, encoder, view=number, num_views=len(examples), before=before, place="a.jsonl:1")
        )
    return strips


def origins_of(example: Example, *reasons: str) -> list[TokenOrigin]:
    """Origins for a test: the reasons in turn for what is graded, `stop` for the last token."""
    found = [
        TokenOrigin(reasons[at % len(reasons)], 1, "content", (at, at + 1))
        if weight
        else TokenOrigin("prompt")
        for at, weight in enumerate(example.weights)
    ]
    return [*found[:-1], TokenOrigin("stop")]


def printed(given: Strip, *, styled: bool = False) -> str:
    """What a terminal gets, with colours or without."""
    color = "truecolor" if styled else None
    console = Console(file=io.StringIO(), width=200, force_terminal=styled, color_system=color)
    console.print(terminal(given))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
