"""`burnish sharpening`: figures, and heat that no token can escape from."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

HOSTILE = [
    "</span><script>alert(1)</script>",
    "\x1b[31mred",
    "\u202eoverride",
    "<img src=x onerror=alert(1)>",
    "\n",
]


def line(step: int, p: float, tokens: list[str]) -> dict[str, Any]:
    n = len(tokens)
    figures = {
        "n": n, "mean_p": p, "median_p": p, "base_mean_p": 0.1, "base_top1": 0.4, "base_top5": 0.8,
        "mean_rank_base": 3,
    }  # fmt: skip
    row = {
        "row": 3, "place": "<b>a.jsonl</b>:4", "prompt": "What\x1b]0;title\x07 <i>is</i> it?", "tokens": tokens,
        "p": [p] * n, "base_p": [0.1] * n, "base_rank": [2] * n, "group": ["content"] * n,
    }  # fmt: skip
    return {"step": step, "tokens": 10 * step, "groups": {"all": figures, "content": figures}, "rows": [row]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    (path / "resolved.yaml").write_text("model: marble\n")
    looks = [line(0, 0.1, HOSTILE), line(5, 0.6, HOSTILE), line(9, 0.95, HOSTILE)]
    (path / "sharpening.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    return path


def test_json_gives_the_figures_of_the_last_look(burnish: Any, run: Path) -> None:
    ran = burnish("sharpening", str(run), "--json")
    found = json.loads(ran.out)
    assert ran.code == 0 and found["steps"] == [0, 5, 9]
    assert found["groups"]["content"]["mean_p"] == 0.95 and found["groups"]["all"]["base_top5"] == 0.8


def test_the_terminal_shows_before_and_after_and_obeys_no_token(burnish: Any, run: Path) -> None:
    ran = burnish("sharpening", str(run))
    assert (
        ran.code == 0 and "\x1b]0" not in ran.out and "\x1b[31mred" not in ran.out and "\u202e" not in ran.out
    )
    assert "␛[31mred" in ran.out and "base" in ran.out and "step 9" in ran.out
    assert "40% of content tokens were the base's first choice already, 80% among its first five" in ran.out


def test_the_page_has_no_script_asks_for_nothing_and_takes_tokens_as_text(
    burnish: Any, run: Path, tmp_path: Path
) -> None:
    place = tmp_path / "heat.html"
    assert burnish("sharpening", str(run), "--html", str(place)).code == 0
    page = place.read_text(encoding="utf-8")

    class Tags(HTMLParser):
        seen: list[str] = []  # noqa: RUF012
        text = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.append(tag)
            assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

        def handle_data(self, data: str) -> None:
            self.text += data

    parsed = Tags()
    parsed.feed(page)
    assert not {"script", "img", "b" * 2, "i"} & set(parsed.seen)
    assert "<script>alert(1)</script>" in parsed.text and "\x1b" not in page and "\u202e" not in page
    assert "default-src &#x27;none&#x27;" in page and not re.search(r"https?://", page)
    assert page.count('class="look"') == 3 and "1 looks between" in page


def test_a_run_without_looks_and_a_damaged_file_are_told_from_each_other(burnish: Any, run: Path) -> None:
    broken = line(0, 0.1, HOSTILE)
    broken["rows"][0]["base_p"] = [0.1]
    (run / "sharpening.jsonl").write_text(json.dumps(broken) + "\n")
    assert "1 probabilities for 5 tokens" in burnish("sharpening", str(run)).err
    (run / "sharpening.jsonl").unlink()
    ran = burnish("sharpening", str(run))
    assert ran.code != 0 and "sharpening_rows" in ran.err
