"""The report of runs that really trained: what training writes is what the report reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish import train
from burnish.__main__ import run as burnish
from burnish.report.collect import collect
from burnish.report.page import html
from tests.report.browser import CHROMIUM, browser
from tests.report.test_damage import LEFT_OUT
from tests.report.test_page import text_of


def opens_alone(report: Path, folder: Path) -> None:
    """At both widths: nothing on the console, no request but for the page, nothing too wide."""
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with browser(folder / "profile") as page:
        for width in (1400, 390):
            page.open(report, width=width)
            assert page.errors == [] and page.requests == [report.as_uri()]
            assert page.value("document.documentElement.scrollWidth") == width


def test_a_short_run_is_told_from_its_files(
    model_directory: Callable[..., Path], data_file: Path, tmp_path: Path
) -> None:
    result = train(
        model=str(model_directory()),
        datasets=str(data_file),
        output_dir=str(tmp_path),
        run_name="short",
        val_set_size=8,
        max_steps=3,
        eval_steps=1,
        learning_rate=1e-3,
        global_batch_size=8,
        sample_prompts=["What of the sun?"],
    )
    page = html([collect(result.run)])
    text = text_of(page)
    assert LEFT_OUT not in text
    for words in (
        "It was corrected 3 times",
        "was shown how to answer by 32 examples. It was",
        "8 examples were kept aside and never learnt from.",
        "40 rows were read: every one was used.",
        "What of the sun?",
        "kept aside: 8",
    ):
        assert words in text, words
    # The first lesson, token by token: what is graded is the answer and its end.
    (strip,) = re.findall(r'<div class="strip">(.*?)</div>', page, re.DOTALL)[:1]
    taught = "".join(re.findall(r'class="token reply"[^>]*>([^<]*)<', strip))
    assert taught == "The sun is bright, number 0."
    assert 'class="token stop"' in strip


def test_tokens_of_data_that_changed_since_are_not_shown(
    model_directory: Callable[..., Path], data_file: Path, tmp_path: Path
) -> None:
    result = train(
        model=str(model_directory()),
        datasets=str(data_file),
        output_dir=str(tmp_path),
        run_name="changed",
        max_steps=1,
        global_batch_size=8,
    )
    data_file.write_text(data_file.read_text().replace("bright", "dim"), encoding="utf-8")
    assert "train.jsonl is not what it was when the run began" in text_of(html([collect(result.run)]))


@pytest.mark.slow
def test_the_report_of_the_demo_run_opens_alone_at_both_widths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert burnish(["demo", "--output-dir", str(tmp_path), "--json"]) == 0
    run = Path(json.loads(capsys.readouterr().out.strip().splitlines()[-1])["run"])
    assert burnish(["report", str(run)]) == 0
    assert LEFT_OUT not in text_of((run / "report.html").read_text(encoding="utf-8"))
    opens_alone(run / "report.html", tmp_path)
