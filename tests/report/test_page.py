"""The report page: it holds what the run's files hold, nothing in them can act, the network is asked nothing."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest

from burnish.chat.strip import visible
from burnish.report.collect import collect
from burnish.report.page import Extras, html, write
from tests.chat.strips import HOSTILE
from tests.report.runs import data_curve, make_run, shots, write_evidence

LEFT_OUT = "what its files hold is not what burnish writes"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "plain")


def page_of(path: Path, word: str = "") -> str:
    extras = Extras(data_curve(word), shots(word), 2.5, f"EUR{word}")
    return html([collect(path)], extras)


def embedded(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="films">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def text_of(page: str) -> str:
    without = re.sub(r"<(style|script|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(markup.unescape(re.sub(r"<[^>]+>", " ", without)).split())


class Elements(HTMLParser):
    """All elements of a page with the names of their attributes, and no text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, tuple[str, ...]]] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, tuple(name for name, _ in attrs)))


def test_every_part_of_a_whole_run_is_on_the_page(run: Path) -> None:
    page = page_of(run)
    text = text_of(page)
    assert LEFT_OUT not in text and "Not in this report" not in text
    for words in (
        "What was run",
        "What it learnt from",
        "How it learnt",
        "What it sharpened",
        "What it says",
        "How well it does",
        "What it cost the model",
        "How much data was enough",
        "Prompting or tuning",
        "What it took",
        "Held-out loss by source",
        "71.0% of the taught tokens were the base's own first choice already.",
        "Exact match on unseen entities: 0.5% (0.0 to 9.3) for the base",
        "3 of 200 questions share 13 words in a row with the training data.",
        "update 60, general text: more general text was mixed in. share raised to 0.2",
        "Tuning pays for itself after 41,000 requests.",
        "Quality reaches 95% of its plateau at 300 rows.",
        "502 rows were read: 500 were used",
        "2 dropped: duplicate",
        "cost at 2.5 EUR an hour",
    ):
        assert words in text, words


def test_each_chart_has_a_title_a_description_and_its_numbers_in_a_table(run: Path) -> None:
    page = page_of(run)
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) >= 10
    for figure in figures:
        charts = re.findall(r'<svg class="(wide|narrow)" [^>]*role="img" aria-label="[^"]+"><title>', figure)
        assert sorted(charts) == ["narrow", "wide"]
        assert figure.count("<desc>") == 2
        assert re.search(r"<details><summary>The numbers.*<table", figure, re.DOTALL)


def test_no_coordinate_is_outside_of_its_chart_or_no_number(run: Path) -> None:
    page = page_of(run)
    assert not re.search(
        r'"[^"]*\b(nan|inf)\b[^"]*"', re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    )
    for width, height, inside in re.findall(r'viewBox="0 0 (\d+) (\d+)"(.*?)</svg>', page, re.DOTALL):
        for points in re.findall(r'points="([^"]+)"', inside):
            for x, y in (pair.split(",") for pair in points.split()):
                assert -1 <= float(x) <= float(width) + 1 and -1 <= float(y) <= float(height) + 1


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_of_a_run_becomes_an_element_or_hides(hostile: str, run: Path, tmp_path: Path) -> None:
    path = make_run(tmp_path / "hostile", hostile)
    page = page_of(path, hostile)
    assert LEFT_OUT not in page
    assert Elements(page).found <= Elements(page_of(run, "plain")).found
    assert page.count("</script>") == 2
    (film,) = embedded(page)
    assert film["rows"][0]["tokens"][0] == visible(f"The{hostile}")
    assert visible(page) == page  # no character that hides, or that turns the text around


def test_a_name_of_a_run_is_text_too(run: Path, tmp_path: Path) -> None:
    path = tmp_path / '"><img src=x onerror=alert(1)>'
    shutil.copytree(run, path)
    assert "<img" not in page_of(path)


def test_the_page_allows_its_own_script_and_style_and_nothing_else(run: Path) -> None:
    page = page_of(run)
    found = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert found is not None
    policy = markup.unescape(found[1])
    assert policy.startswith("default-src 'none';")
    assert "base-uri 'none'" in policy and "unsafe" not in policy
    for tag, kind in (("script", "script"), ("style", "style")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://|\ssrc=|@import|url\(", page)
    assert not re.search(r"\son\w+=|\sstyle=|innerHTML|insertAdjacentHTML", page)


def test_the_film_has_the_probability_of_each_token_at_each_look(run: Path) -> None:
    (film,) = embedded(page_of(run))
    looks = [json.loads(line) for line in (run / "sharpening.jsonl").read_text().splitlines()]
    for shown, row in zip(film["rows"], looks[-1]["rows"], strict=True):
        assert shown["tokens"] == row["tokens"]
        assert [frame["step"] for frame in shown["frames"]] == [look["step"] for look in looks]
        assert shown["frames"][-1]["p"] == [round(p, 3) for p in row["p"]]
        assert shown["rank"] == row["base_rank"]


def test_several_runs_show_only_where_their_recipes_differ(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", recipe={"learning_rate": 0.002, "adapter": "lora"})
    text = text_of(html([collect(run), collect(other)]))
    table = text[text.index("Where the recipes differ") : text.index("other keys have the same value")]
    assert "learning_rate 0.0005 0.002" in table and "adapter full lora" in table
    assert "global_batch_size" not in table
    assert "Of 4 first answers, 0 stopped by themselves; of the last ones 4 do." in text
    assert "for the base, 98.5% (89.6 to 100.0) for plain, 98.5% (89.6 to 100.0) for other." in text


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    assert page_of(run) == page_of(run)


def test_without_evidence_its_sections_are_left_out_and_named(tmp_path: Path) -> None:
    path = make_run(tmp_path / "bare")
    for name in ("evals.json", "sharpening.jsonl", "forgetting.jsonl", "samples.jsonl"):
        (path / name).unlink()
    text = text_of(html([collect(path)]))
    assert "What it sharpened" not in text and "How it learnt" in text
    left = text[text.index("Not in this report") :]
    for words in ("evals.json: burnish eval RUN", "sharpening.jsonl", "forgetting.jsonl", "curve.json"):
        assert words in left


def test_what_a_reader_must_know_stands_before_the_charts(tmp_path: Path) -> None:
    path = make_run(tmp_path / "half")
    (path / "summary.json").unlink()
    certificate = orjson.loads((path / "certificate.json").read_bytes())
    certificate |= {"ok": False, "violations": {"stop-not-graded": 3}}
    (path / "certificate.json").write_bytes(orjson.dumps(certificate))
    text = text_of(html([collect(path)]))
    told = text[
        text.index("Before you read on") : text.index("What was run", text.index("Before you read on"))
    ]
    assert "The run is not finished (interrupted): 120 of 120 updates were made." in told
    assert "The certificate names a broken rule: stop-not-graded." in told
    assert "The budget for forgetting was exceeded on general text." in told
    assert "While it trained: loss spike (2 times)." in told


def test_the_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "report.html"
    write("before", place)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write("after", place)
    assert place.read_text() == "before"
    assert list(tmp_path.iterdir()) == [place]


def test_evidence_written_again_is_read_again(tmp_path: Path) -> None:
    path = make_run(tmp_path / "again")
    write_evidence(path, " (second)")
    assert "unseen entities (second)" in text_of(page_of(path))
