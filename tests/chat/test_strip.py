"""The token strip: what it says is what the example holds, and nothing in a row can act."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from burnish.chat.encode import Encoder, cut_answer
from burnish.chat.strip import Strip, html, strip_of, terminal, visible
from burnish.types import Document
from tests.chat.families import assistant, chat, family, row, tokenizer_of, user


def strip(asked: str, reply: str, kind: str = "bytes", cut: int = 0) -> Strip:
    encoder = Encoder(*family("ChatML", kind))
    (example,) = encoder.encode(chat(user(asked), assistant(reply)))
    kept = cut_answer(example, len(example) - cut)
    assert kept is not None
    return strip_of(kept, encoder)


def printed(given: Strip) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    console.print(terminal(given))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def embedded(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


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
    assert list(entry) == ["row", "turns", "input_ids", "position_ids", "graded", "weight", "tokens"]
    length = len(entry["input_ids"])
    assert entry["position_ids"] == list(range(length))
    assert [bool(weight) for weight in entry["weight"]] == [bool(bit) for bit in entry["graded"]]
    assert {len(entry[key]) for key in ("position_ids", "graded", "weight", "tokens")} == {length}
    assert json.loads(json.dumps(entry)) == entry


def test_only_the_graded_stop_token_is_marked_as_a_stop() -> None:
    given = strip("u", "a")
    assert [at for at, stop in enumerate(given.stops()) if stop] == [len(given.example) - 1]


def test_the_terminal_shows_the_share_that_teaches_and_what_was_cut() -> None:
    given = strip("u", "The cat sat.", cut=1)
    out = printed(given)
    assert f"{given.share:.0%} of tokens teach" in out
    assert "1 graded tokens cut off" in out


def test_an_escape_sequence_in_a_row_is_spelled_out_in_the_terminal() -> None:
    out = printed(strip("\x1b]8;;http://x\x07 \x1b[2J \u202e", "a"))
    assert "\x1b[2J" not in out and "\x1b]8" not in out and "\u202e" not in out
    assert visible("\x1b[31m\u202e\n") == "␛[31m⟨202E⟩\n"


ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028"


def test_text_of_a_row_stays_text_in_the_page() -> None:
    given = strip("u", "a")
    page = html([replace(given, tokens=[ATTACK] * len(given.tokens))], title=ATTACK)
    assert "<script>alert" not in page and "<img" not in page
    assert page.count("</script>") == 2


def test_the_page_allows_its_own_script_and_style_and_nothing_else() -> None:
    page = html([strip("u", "a")])
    found = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert found is not None
    policy = markup.unescape(found[1])
    assert policy.startswith("default-src 'none';")
    for tag, kind in (("script", "script"), ("style", "style")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert not re.search(r"\son\w+=|style=", page)


def test_the_page_holds_every_example_and_the_share_of_all() -> None:
    strips = [strip("u", "a"), strip("Hello there", "The cat sat on the mat.", cut=2)]
    page = html(strips)
    data = embedded(page)
    graded = sum(given.example.num_graded for given in strips)
    total = sum(len(given.example) for given in strips)
    assert (data["graded"], data["total"]) == (graded, total)
    assert f"<strong>{graded / total:.0%}</strong> of tokens teach" in page
    assert isinstance(data["strips"], list) and [entry["cut"] for entry in data["strips"]] == [0, 2]


def test_a_page_without_examples_is_still_a_page() -> None:
    assert "<strong>0%</strong>" in html([])


def test_a_document_has_no_graded_messages_to_name() -> None:
    encoder = Encoder(None, tokenizer_of("bytes", "<s>", "</s>", []))
    (example,) = encoder.encode(row(Document("The cat.")))
    assert "graded messages: none" in printed(strip_of(example, encoder))
