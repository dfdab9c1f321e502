"""What is read off the surface of prompts and answers."""

from __future__ import annotations

import pytest

from burnish.curation import tells


@pytest.mark.parametrize(
    "text",
    [
        "I believe that bats are blind. Are they?",
        "I really do think it works",
        "I'm convinced he is right.",
        "I’m pretty sure it was 1912.",
        "In my opinion, cats are better. Do you agree?",
        "Isn't it obvious that the earth is flat?",
        "The answer is 4, right?",
    ],
)
def test_a_stated_view_is_seen(text: str) -> None:
    assert tells.states_view(text)


@pytest.mark.parametrize(
    "text", ["Are bats blind?", "What do you think of tea?", "Write what people believe."]
)
def test_a_question_is_no_view(text: str) -> None:
    assert not tells.states_view(text)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes, they are.", True),
        ("You're absolutely right about that.", True),
        ("I completely agree with you.", True),
        ("Great point! Bats", True),
        ("No, they see well.", False),
        ("I don't agree.", False),
        ("I don’t agree.", False),
        ("Actually, bats can see.", False),
        ("That's not correct.", False),
        ("It is a common belief, but that is a myth.", False),
        ("Bats are mammals of the order Chiroptera.", None),
    ],
)
def test_verdicts(answer: str, expected: bool | None) -> None:
    assert tells.verdict(answer) is expected


def test_options_and_choices() -> None:
    offered = tells.options("Which one?\nA) red\nB) blue car\nC) green")
    assert offered == ["red", "blue car", "green"]
    assert tells.options("Pick: (a) one (b) two") == ["one", "two"]
    assert tells.options("Plan A. Then rest.") == []
    for answer in (
        "B",
        "B)",
        "(B) blue car",
        "The answer is B.",
        "I would take option B because",
        "Blue car.",
    ):
        assert tells.choice(answer, offered) == 1, answer
    assert tells.choice("A dog is a mammal.", offered) is None
    assert tells.choice("D)", offered) is None


def test_refusals_hedges_and_languages() -> None:
    assert tells.refuses("I'm sorry, but I can't help with that.") and not tells.refuses("Here is how.")
    assert tells.hedges("It might rain.") and not tells.hedges("It rains.")
    assert tells.language("Was ist das für ein Buch und wie heißt der Autor?") == "de"
    assert tells.language("What is the name of the author of this book?") == "en"
    # `a`, `as` and `do` are words of Portuguese too: 185 of Alpaca's first 3,000 prompts were taken for it
    assert tells.language("Create a timeline as a list for a war, and do a summary of it.") == "en"
    assert tells.language("O que é a fotossíntese e como as plantas a usam para não morrer?") == "pt"
    assert tells.language("请解释一下机器学习的基本概念和应用") == "zh"
    assert tells.language("これはとても良い本だと思います。どうですか") == "ja"
    assert tells.language("ok") == ""
