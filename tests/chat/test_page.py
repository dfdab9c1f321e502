"""The page of strips: it holds what the examples hold, and nothing in a row can act."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from burnish.chat.encode import Encoder
from burnish.chat.page import MAX_LOST, Facts, Lost, html
from burnish.chat.strip import KINDS, Strip, strip_of, visible
from tests.chat.families import assistant, chat, family, user
from tests.chat.strips import HOSTILE, origins_of, strip, views

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


class Elements(HTMLParser):
    """All elements of a page with the names of their attributes, and no text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def page_of(text: str) -> str:
    facts = Facts(
        text, text, text, scope=text, counts={text: 2}, lost=[Lost(text, "dropped", text, f"({text})")]
    )
    given = strip("u", text)
    return html([replace(given, place=text, tokens=[text] * len(given.tokens))], title=text, facts=facts)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_of_a_row_becomes_an_element(hostile: str) -> None:
    page = page_of(hostile)
    assert Elements(page).found == Elements(page_of("plain")).found
    assert page.count("</script>") == 2
    (row,) = embedded(page)["rows"]
    assert set(row["views"][0]["tokens"]) == {visible(hostile)}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_character_of_the_page_is_one_that_cannot_be_seen(hostile: str) -> None:
    assert visible(page_of(hostile)) == page_of(hostile)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_in_a_browser_hostile_rows_make_no_element_either(tmp_path: Path) -> None:
    def drawn(text: str) -> set[tuple[str, tuple[str, ...]]]:
        path = tmp_path / "page.html"
        path.write_text(page_of(text), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        ran = subprocess.run(
            [str(CHROMIUM), *options, path.as_uri()], capture_output=True, text=True, timeout=60
        )
        return set(Elements(ran.stdout).found)

    plain = drawn("plain\n\u202e")
    assert ("span", ("class", "data-at", "tabindex")) in plain  # the script ran, and drew tokens
    assert drawn("\n\u202e".join(HOSTILE)) <= plain


def test_the_page_allows_its_own_script_and_style_and_nothing_else() -> None:
    page = html([strip("u", "a")])
    found = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert found is not None
    policy = markup.unescape(found[1])
    assert policy.startswith("default-src 'none';")
    assert "base-uri 'none'" in policy and "unsafe" not in policy
    for tag, kind in (("script", "script"), ("style", "style")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert not re.search(r"\son\w+=|style=|innerHTML|insertAdjacentHTML", page)


def test_the_counter_is_graded_over_total_of_all_that_is_shown() -> None:
    strips = [strip("u", "a"), strip("Hello there", "The cat sat on the mat.", cut=2)]
    page = html(strips)
    data = embedded(page)
    graded = sum(given.example.num_graded for given in strips)
    total = sum(len(given.example) for given in strips)
    assert (data["graded"], data["total"], sum(data["by_kind"])) == (graded, total, total)
    assert data["by_kind"][0] == total - graded
    assert f"<strong>{graded / total:.0%}</strong> of tokens teach" in page


def test_each_token_in_the_page_is_the_piece_of_the_tokenizer_with_its_id_weight_and_origin() -> None:
    encoder = Encoder(*family("ChatML"))
    (example,) = encoder.encode(chat(user("Hi\nthere"), assistant("A \U0001f9ff cat.", weight=0.5)))
    given = strip_of(example, encoder, origins=origins_of(example, "reply", "template"))
    (row,) = embedded(html([given]))["rows"]
    (view,) = row["views"]
    assert view["tokens"] == encoder.pieces(example)
    assert (view["ids"], view["weight"]) == (example.input_ids, example.weights)
    assert [KINDS[kind] for kind in view["kind"]] == given.kinds()
    assert view["origin"][-1] == "stop token: ends the turn"
    assert {len(view[key]) for key in ("tokens", "ids", "weight", "kind", "origin")} == {len(example)}


def test_the_views_of_a_row_stand_together_with_what_they_share() -> None:
    first, second = views()
    other = replace(strip("u", "a"), place="a.jsonl:2")
    rows = embedded(html([first, second, other]))["rows"]
    assert [len(row["views"]) for row in rows] == [2, 1]
    assert [view["shared"] for view in rows[0]["views"]] == [0, second.shared]
    assert rows[0]["place"] == "a.jsonl:1"
    assert "view 2 of 2 · grades message 3" in rows[0]["views"][1]["title"]


def test_what_was_cut_is_in_the_page() -> None:
    (row,) = embedded(html([strip("u", "The cat sat.", cut=3)]))["rows"]
    assert row["views"][0]["cut"] == 3


def lost(count: int) -> list[Lost]:
    return [Lost(f"a.jsonl:{line}", "dropped", "too long", "9 tokens") for line in range(count)]


def test_rows_that_are_not_trained_on_are_listed_with_place_and_reason() -> None:
    page = html([], facts=Facts(lost=[*lost(2), Lost("a.jsonl:7", "cut", "too long", "12 tokens")]))
    assert "not trained on: 2 rows · cut or changed: 1 row" in page
    assert "<td>a.jsonl:1</td><td>dropped</td><td>too long</td><td>9 tokens</td>" in page
    assert "<details" not in html([])


def test_a_long_list_of_lost_rows_ends_with_how_many_more_there_are() -> None:
    page = html([], facts=Facts(lost=lost(MAX_LOST + 3)))
    assert page.count("<td>dropped</td>") == MAX_LOST
    assert "and 3 more" in page


def test_the_head_of_the_page_names_data_model_template_and_what_was_unusual() -> None:
    facts = Facts("d.jsonl", "some/model", "the model's own · 1234", "(all)", {"seam_merges": 1200, "odd": 0})
    page = markup.unescape(html([strip("u", "a")], facts=facts))
    for words in ("d.jsonl", "some/model", "the model's own · 1234", "1 row, 1 sequence, ", "<b>1,200</b>"):
        assert words in page
    assert "odd" not in re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)


def test_a_page_without_examples_is_still_a_page() -> None:
    assert "<strong>0%</strong>" in html([])


def test_a_thousand_characters_of_one_word_are_one_token_list_and_not_lost() -> None:
    given: Strip = strip("u", "w" * 1000)
    (row,) = embedded(html([given]))["rows"]
    assert "w" * 1000 in "".join(row["views"][0]["tokens"])
