"""The token strip: what it says is what the example holds."""

from __future__ import annotations

import json
import re

import pytest

from burnish.chat.encode import Encoder, cut_answer
from burnish.chat.paint import terminal
from burnish.chat.provenance import TokenOrigin
from burnish.chat.strip import origin_in_words, short_origin, strip_of, visible
from burnish.types import Document
from tests.chat.families import assistant, chat, family, row, tokenizer_of, user
from tests.chat.strips import HOSTILE, origins_of, printed, strip, views


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_the_tokens_of_a_strip_read_as_the_text_of_the_example(kind: str) -> None:
    given = strip("Hello there", "The cat.", kind)
    assert "assistant" in "".join(given.tokens)
    assert "".join(given.tokens).endswith("The cat.<|im_end|>")


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_part_of_a_character_is_shown_as_its_bytes(kind: str) -> None:
    tokens = strip("u", "\U0001f9ff", kind).tokens
    assert any(re.fullmatch(r"‹[0-9A-F ]+›", token) for token in tokens)
    assert not any("\ufffd" in token for token in tokens)


def test_the_json_of_an_example_has_one_entry_per_token() -> None:
    entry = strip("u", "a").as_dict()
    keys = ["row", "turns", "input_ids", "position_ids", "graded", "weight", "tokens", "origin"]
    assert list(entry) == keys
    length = len(entry["input_ids"])
    assert entry["position_ids"] == list(range(length))
    assert [bool(weight) for weight in entry["weight"]] == [bool(bit) for bit in entry["graded"]]
    assert {len(entry[key]) for key in keys[2:]} == {length}
    assert json.loads(json.dumps(entry)) == entry


def test_without_provenance_a_token_is_told_by_its_weight() -> None:
    given = strip("u", "a")
    assert given.kinds()[-2:] == ["reply", "stop"]
    assert given.kinds().count("stop") == 1
    assert set(given.kinds()) == {"context", "reply", "stop"}


def test_a_token_without_weight_is_drawn_as_context_whatever_it_came_from() -> None:
    encoder = Encoder(*family("ChatML"))
    (example,) = encoder.encode(chat(user("a"), assistant("b", weight=0), user("c"), assistant("d")))
    origins = [TokenOrigin("no weight", 1, "content", (0, 1))] * len(example)
    kinds = strip_of(example, encoder, origins=origins).kinds()
    graded = [kind != "context" for kind in kinds]
    assert graded == [weight != 0.0 for weight in example.weights]


@pytest.mark.parametrize(
    ("origin", "words", "short"),
    [
        (
            TokenOrigin("reply", 1, "content", (0, 5)),
            "message 1, reply, characters 0 to 5",
            "reply 1.content[0:5]",
        ),
        (
            TokenOrigin("reasoning", 3, "reasoning_content", (2, 9)),
            "message 3, reasoning, characters 2 to 9",
            "reasoning 3.reasoning_content[2:9]",
        ),
        (
            TokenOrigin("tool call", 1, "tool_calls[0].function.name", (0, 4)),
            "message 1, tool call, name, characters 0 to 4",
            "tool call 1.tool_calls[0].function.name[0:4]",
        ),
        (
            TokenOrigin("prompt", 0, "content", (0, 2)),
            "prompt: message 0, content, characters 0 to 2",
            "prompt 0.content[0:2]",
        ),
        (
            TokenOrigin("prompt", -1, "tools[0].function.name"),
            "prompt: the tools offered, name",
            "prompt tools[0].function.name",
        ),
        (
            TokenOrigin("no weight", 1, "content", (0, 2)),
            "message 1, weight 0, characters 0 to 2",
            "no weight 1.content[0:2]",
        ),
        (TokenOrigin("prompt"), "prompt", "prompt"),
        (TokenOrigin("reply"), "reply", "reply"),
        (TokenOrigin("template"), "the template's own text", "template"),
        (TokenOrigin("stop"), "stop token: ends the turn", "stop"),
    ],
)
def test_an_origin_is_told_in_words_and_in_short(origin: TokenOrigin, words: str, short: str) -> None:
    assert origin_in_words(origin) == words
    assert short_origin(origin) == short


def test_a_later_view_knows_which_tokens_it_shares_with_the_one_before() -> None:
    first, second = views()
    assert (first.shared, second.shared) == (0, second.shared)
    ids = (first.example.input_ids, second.example.input_ids)
    assert 0 < second.shared < min(map(len, ids))
    assert ids[0][: second.shared] == ids[1][: second.shared]
    assert ids[0][second.shared] != ids[1][second.shared]
    assert f"{second.shared} tokens shared with view 1" in printed(second)


def test_a_view_is_named_by_its_row_its_number_and_what_it_grades() -> None:
    assert [one.title for one in views()] == [
        "row 0 · view 1 of 2 · grades message 1",
        "row 0 · view 2 of 2 · grades message 3",
    ]
    assert strip("u", "a").title == "row 0 · grades message 1"


def test_the_terminal_shows_the_share_that_teaches_and_what_was_cut() -> None:
    given = strip("u", "The cat sat.", cut=1)
    out = printed(given)
    assert f"{given.share:.0%} of tokens teach" in out
    assert "╱╱╱ 1 graded tokens cut off ╱╱╱" in out


def test_a_weight_other_than_one_is_written_beside_the_tokens_that_have_it() -> None:
    encoder = Encoder(*family("ChatML"))
    (example,) = encoder.encode(chat(user("u"), assistant("cat", weight=0.5)))
    assert printed(strip_of(example, encoder)).count("×0.5") == 1
    assert "×" not in printed(strip("u", "cat"))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_in_a_row_acts_on_the_terminal(hostile: str) -> None:
    plain, styled = printed(strip(hostile, hostile)), printed(strip(hostile, hostile), styled=True)
    assert all(character == "\n" or character.isprintable() for character in plain)
    # The only escape sequences are rich's own colours.
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", styled)
    assert "\x1b[31m" not in styled and "\x1b[2J" not in styled


def test_what_cannot_be_seen_is_spelled_out() -> None:
    assert visible("\x1b[31m\u202e\n") == "␛[31m⟨202E⟩\n"
    assert visible("a\u200bb\U000e0041\ufe0f\u2028") == "a⟨200B⟩b⟨E0041⟩⟨FE0F⟩⟨2028⟩"
    assert visible("é 語 😀 \u00e9") == "é 語 😀 \u00e9"


def test_a_document_has_no_graded_messages_to_name() -> None:
    encoder = Encoder(None, tokenizer_of("bytes", "<s>", "</s>", []))
    (example,) = encoder.encode(row(Document("The cat.")))
    assert strip_of(example, encoder).title == "row 0"
    assert strip_of(example, encoder, view=2, num_views=3).title == "row 0 · window 2 of 3"


def test_each_kind_of_graded_token_that_is_there_is_in_the_legend() -> None:
    encoder = Encoder(*family("ChatML"))
    (example,) = encoder.encode(chat(user("u"), assistant("The cat sat on the mat.")))
    origins = origins_of(example, "reasoning", "tool call", "template")
    legend = printed(strip_of(example, encoder, origins=origins)).strip().splitlines()[-1]
    assert legend.split("  ") == ["context", "reasoning", "tool call", "template", "stop"]


def test_a_cut_answer_keeps_its_origins() -> None:
    encoder = Encoder(*family("ChatML"))
    (example,) = encoder.encode(chat(user("u"), assistant("The cat sat on the mat.")))
    kept = cut_answer(example, len(example) - 2)
    assert kept is not None
    given = strip_of(kept, encoder, origins=origins_of(example, "reply")[: len(kept)])
    assert given.kinds()[-1] == "reply" and "stop" not in given.kinds()
    assert terminal(given) is not None
