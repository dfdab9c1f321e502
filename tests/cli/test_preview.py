"""`burnish preview`: which rows it reads and shows, on the terminal, as JSON and as one page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import conversation, write_jsonl

from burnish.chat.encode import Encoder
from burnish.data import sample

ModelDirectory = Callable[..., Path]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def preview(burnish: Any, model_directory: ModelDirectory) -> Callable[..., Any]:
    def run(data: Path, *words: str) -> Any:
        return burnish("preview", str(data), "--model", str(model_directory()), *words)

    return run


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "hundred.jsonl", [conversation(index) for index in range(100)])


def lines(ran: Any) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def page_data(path: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_json_gives_every_row_and_says_of_each_token_where_it_came_from(preview: Any, hundred: Path) -> None:
    given = lines(preview(hundred, "--json"))
    assert [one["row"] for one in given] == list(range(100))
    keys = {"row", "turns", "input_ids", "position_ids", "graded", "weight", "tokens", "origin"}
    assert all(set(one) == keys for one in given)
    assert all(len(one["origin"]) == len(one["input_ids"]) for one in given)
    assert given[0]["origin"][-1].startswith("stop")


def test_the_origin_of_a_graded_token_is_the_place_of_its_text_in_the_row(
    preview: Any, hundred: Path
) -> None:
    for one in lines(preview(hundred, "--limit", "9", "--json")):
        contents = [message["content"] for message in conversation(one["row"])["messages"]]
        found = ""
        for token, origin, bit in zip(one["tokens"], one["origin"], one["graded"], strict=True):
            place = re.fullmatch(r"(reply|prompt) (\d)\.content\[(\d+):(\d+)\]", origin)
            assert bool(bit) == (origin.split()[0] in ("reply", "stop"))
            if place is not None:
                assert contents[int(place[2])][int(place[3]) : int(place[4])] == token
                found += token
        assert found == "".join(contents)


def test_the_windows_of_a_long_text_have_the_origins_of_their_own_tokens(
    preview: Any, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "d.jsonl", [{"text": "The sun is bright, and so it stays. " * 9}])
    (whole,), parts = (lines(preview(data, "--json", *words)) for words in ((), ("--max-length", "20")))
    assert len(parts) > 2
    rejoined = parts[0]["origin"] + [origin for part in parts[1:] for origin in part["origin"][1:]]
    assert rejoined == whole["origin"]


def test_of_what_is_replayed_one_row_is_shown_in_its_windows(
    preview: Any, hundred: Path, tmp_path: Path
) -> None:
    text = write_jsonl(tmp_path / "text.jsonl", [{"text": "The sun is bright. " * 6}, {"text": "No more."}])
    replay = f"replay={{path: {text}, share: 0.2, max_length: 16}}"
    shown = lines(preview(hundred, replay, "--limit", "2", "--json"))
    told = "".join(
        token for one in shown[2:] for token, bit in zip(one["tokens"], one["graded"], strict=True) if bit
    )
    assert [one["row"] for one in shown[:2]] == [0, 1] and {one["row"] for one in shown[2:]} == {0}
    assert told.count("sun is bright") == 6 and "No more" not in told
    assert all(len(one["tokens"]) <= 16 for one in shown[2:]) and all(any(one["graded"]) for one in shown)


def test_no_more_rows_are_encoded_or_read_than_are_shown(
    preview: Any, hundred: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, read = [], []
    encode, source = Encoder.encode, sample.read_rows_of
    monkeypatch.setattr(Encoder, "encode", lambda self, row: encoded.append(row.index) or encode(self, row))

    def counted(*given: Any, **named: Any) -> Any:
        for row in source(*given, **named):
            read.append(row.index)
            yield row

    monkeypatch.setattr(sample, "read_rows_of", counted)
    shown = preview(hundred)
    assert encoded == [0, 1, 2]
    assert read == [0, 1, 2, 3]  # the fourth tells whether there are more
    assert "3 rows, 3 sequences" in shown.out and "not all of the data" in shown.out


def test_limit_says_how_many_rows_are_shown(preview: Any, hundred: Path, tmp_path: Path) -> None:
    assert len(lines(preview(hundred, "--limit", "7", "--json"))) == 7
    shown = preview(hundred, "--limit", "5", "--html", str(tmp_path / "p.html"))
    assert "5 rows" in shown.out
    assert len(page_data(tmp_path / "p.html")["rows"]) == 5


def test_figures_of_all_rows_are_said_to_be_so(preview: Any, hundred: Path) -> None:
    assert "all of the data" in preview(hundred, "--limit", "100").out


def test_one_row_is_shown_by_number_or_by_place(preview: Any, hundred: Path) -> None:
    (by_number,) = lines(preview(hundred, "--row", "41", "--json"))
    (by_place,) = lines(preview(hundred, "--row", "hundred.jsonl:42", "--json"))
    assert by_number == by_place
    assert "number 41." in "".join(by_number["tokens"])
    assert "row 41 ·" in preview(hundred, "--row", "41").out


def test_a_row_that_is_not_there_is_a_usage_error(preview: Any, hundred: Path) -> None:
    ran = preview(hundred, "--row", "100")
    assert ran.code == 2 and "the data has 100 rows" in ran.err


def test_rows_that_are_left_out_make_place_for_the_next(preview: Any, tmp_path: Path) -> None:
    bad = {"messages": [{"role": "user", "content": "Hi"}]}
    data = write_jsonl(tmp_path / "d.jsonl", [bad, conversation(0), conversation(0), conversation(1)])
    shown = preview(data, "--limit", "2", "--json")
    assert [one["row"] for one in lines(shown)] == [1, 3]
    assert "d.jsonl:1: dropped: no assistant turn" in shown.err
    assert "d.jsonl:3: dropped: duplicate" in shown.err


def test_keys_of_a_recipe_may_follow_and_a_cut_answer_is_marked(
    preview: Any, tmp_path: Path, hundred: Path
) -> None:
    (whole,) = lines(preview(hundred, "--row", "3", "--json"))
    length = len(whole["input_ids"]) - 4
    words = ("--row", "3", "--max-length", str(length), "on_too_long=cut_answer")
    assert "4 graded tokens cut off" in preview(hundred, *words).out
    preview(hundred, *words, "--html", str(tmp_path / "p.html"))
    assert page_data(tmp_path / "p.html")["rows"][0]["views"][0]["cut"] == 4
    assert "cut or changed: 1 row" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_hostile_rows_print_no_escape_sequence(preview: Any, tmp_path: Path) -> None:
    row = conversation(0)
    row["messages"][0]["content"] = "\x1b]8;;http://x\x07 \x1b[2J \u202e \U000e0041 [bold]"
    shown = preview(write_jsonl(tmp_path / "d.jsonl", [row]))
    assert not {"\x1b", "\x07", "\u202e", "\U000e0041"} & set(shown.out + shown.err)
    assert "[bold]" in shown.out


def test_the_picture_of_the_readme_shows_views_shared_tokens_and_a_cut(burnish: Any, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    words = ("--chat-template", str(RECIPES / "preview.jinja"), "--html", str(page))
    ran = burnish(
        "preview",
        str(RECIPES / "preview.jsonl"),
        "--model",
        "marble",
        *words,
        "max_length=384",
        "on_too_long=cut_answer",
    )
    assert ran.code == 0, ran.err
    data = page_data(page)
    views = [view for row in data["rows"] for view in row["views"]]
    assert any(view["shared"] for view in views) and any(view["cut"] for view in views)
    assert data["graded"] == sum(weight != 0.0 for view in views for weight in view["weight"])
    assert 0.5 in {weight for view in views for weight in view["weight"]}
