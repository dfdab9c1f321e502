"""The report in a real browser: no word on the console, no request that leaves the machine, no line too wide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from burnish.report.collect import collect
from burnish.report.page import Extras, html, write
from tests.chat.strips import HOSTILE
from tests.report.browser import CHROMIUM, Page, browser
from tests.report.runs import data_curve, make_run, shots

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")

WIDTHS = (1400, 390)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    runs = [collect(make_run(folder / name)) for name in ("first", "second")]
    write(html(runs, Extras(data_curve(), shots())), folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_and_asks_nobody(page: Page, report: Path, width: int, scheme: str) -> None:
    page.open(report, width=width, scheme=scheme)
    assert page.errors == []
    assert page.requests == [report.as_uri()]  # the page itself, and nothing besides
    assert page.value("document.documentElement.scrollWidth") == width
    assert page.value("document.querySelectorAll('.film .play').length") == 2  # the script ran


@pytest.mark.parametrize("width", WIDTHS)
def test_each_chart_is_drawn_once_and_no_text_leaves_its_card(page: Page, report: Path, width: int) -> None:
    page.open(report, width=width)
    shown = (
        "[...document.querySelectorAll('figure svg')].filter((each) => each.getBoundingClientRect().width)"
    )
    assert page.value(f"{shown}.length") == page.value("document.querySelectorAll('figure').length")
    outside = page.value(
        """[...document.querySelectorAll("figure svg text")].filter((text) => {
            const own = text.getBoundingClientRect(), card = text.closest("figure").getBoundingClientRect();
            return own.width && (own.left < card.left || own.right > card.right + 1);
        }).map((text) => text.textContent)"""
    )
    assert outside == []


def test_the_film_plays_from_the_first_look_to_the_last(page: Page, report: Path) -> None:
    page.open(report, width=1400)
    page.value("document.querySelectorAll('.frame')[0].click()")
    assert page.value("document.querySelector('.controls output').textContent") == "before training"
    before = page.value("document.querySelector('.heats .heat:last-child').className")
    page.value("document.querySelector('.play').click()")
    for _ in range(100):
        page.settle(0.1)
        if page.value("document.querySelector('.controls output').textContent") != "before training":
            break
    assert page.value("document.querySelector('.controls output').textContent").startswith("after update")
    page.value("document.querySelector('.frame:last-child').click()")
    after = page.value("document.querySelector('.heats .heat:last-child').className")
    assert (before, after) == ("heat h0", "heat h10")
    page.value("document.querySelector('.heats .heat:last-child').focus()")
    assert "the base's choice no. 411 · stop" in page.value("document.querySelector('.detail').textContent")


def test_the_reader_may_choose_the_scheme(page: Page, report: Path) -> None:
    page.open(report, width=1400, scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.value(ground)
    page.value("document.getElementById('scheme').click()")
    assert page.value(ground) != light
    page.open(report, width=1400, scheme="dark")
    assert page.value(ground) != light


def test_hostile_text_makes_no_element_in_the_browser_either(
    page: Page, report: Path, tmp_path: Path
) -> None:
    def elements(word: str, name: str) -> set[str]:
        run = collect(make_run(tmp_path / name, word))
        write(html([run], Extras(data_curve(word), shots(word))), tmp_path / f"{name}.html")
        page.open(tmp_path / f"{name}.html", width=1400)
        assert page.errors == [] and page.left_machine() == []
        each = "[e.tagName, ...e.getAttributeNames().sort()].join(' ')"
        return set(page.value(f"[...document.querySelectorAll('*')].map((e) => {each})"))

    assert elements("\n\u202e".join(HOSTILE), "hostile") <= elements("plain", "plain")


def planted(report: Path, place: Path, what: str, *, unguarded: bool = False) -> Path:
    text = report.read_text(encoding="utf-8").replace("</body>", f"{what}</body>")
    if unguarded:
        text = text.replace("http-equiv", "data-was")
    place.write_text(text, encoding="utf-8")
    return place


def test_a_planted_console_error_is_caught(page: Page, report: Path, tmp_path: Path) -> None:
    page.open(
        planted(report, tmp_path / "a.html", "<script>console.error('planted')</script>", unguarded=True),
        width=1400,
    )
    assert any("planted" in error for error in page.errors)
    page.open(planted(report, tmp_path / "b.html", "<script>planted()</script>", unguarded=True), width=1400)
    assert page.errors


def test_a_planted_request_is_caught_and_the_policy_stops_it(
    page: Page, report: Path, tmp_path: Path
) -> None:
    image = '<img src="http://127.0.0.1:9/planted.png" alt="">'
    page.open(planted(report, tmp_path / "open.html", image, unguarded=True), width=1400)
    assert page.left_machine() == ["http://127.0.0.1:9/planted.png"]
    page.open(planted(report, tmp_path / "guarded.html", image), width=1400)
    assert page.errors and "Content Security Policy" in page.errors[0]
    page.open(
        planted(report, tmp_path / "script.html", "<script>document.title = 'mine'</script>"), width=1400
    )
    assert page.errors and page.value("document.title") != "mine"


def test_a_page_that_is_too_wide_is_caught(page: Page, report: Path, tmp_path: Path) -> None:
    wide = "<p><code>" + "w" * 400 + "</code></p><pre>" + "w" * 400 + "</pre>"
    text = (
        report.read_text(encoding="utf-8")
        .replace("</body>", f"{wide}</body>")
        .replace("http-equiv", "data-was")
    )
    (tmp_path / "wide.html").write_text(
        text.replace("overflow-x: auto", "overflow-x: visible"), encoding="utf-8"
    )
    page.open(tmp_path / "wide.html", width=390)
    assert page.value("document.documentElement.scrollWidth") > 390
