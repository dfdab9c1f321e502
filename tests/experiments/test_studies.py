"""What the studies on real data do around training: sets, arms, verdicts, charts."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from xml.etree import ElementTree

import orjson
import pytest

from burnish.experiments import domain, million, tasks
from burnish.experiments.chart import Point, chart
from burnish.experiments.selection import Pool, as_long_as, at_random

SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_has_a_line_and_a_name_for_each_arm_and_a_mark_for_each_point() -> None:
    lines = {"a < b": [Point(1, 2.0, 0.1), Point(8, 1.0)], "base": [Point(1, 3.0), Point(8, 3.0)]}
    page = ElementTree.fromstring(chart("loss & more", "tasks", lines, log=True))
    texts = [text.text for text in page.iter(f"{SVG}text")]
    assert {"loss & more", "tasks", "a < b", "base", "1", "8"} <= set(texts)
    assert len([*page.iter(f"{SVG}polyline")]) == 2 and len([*page.iter(f"{SVG}circle")]) == 4
    first, last = ([float(c.get("cx", "")) for c in page.iter(f"{SVG}circle")][k] for k in (0, 1))
    assert first == 70 and last == 720 - 190
    heights = [float(c.get("cy", "")) for c in page.iter(f"{SVG}circle")]
    assert heights[1] == max(heights) and heights[2] == min(heights)  # the lowest loss lies lowest


def test_stories_are_whole_and_on_one_side(tmp_path: Path) -> None:
    for name in (*domain.TEXTS, *domain.QUESTIONS, domain.GENERAL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    for name in domain.TEXTS:
        rows = b"".join(orjson.dumps({"text": f"{name} page {k}"}) + b"\n" for k in range(60))
        (tmp_path / name).write_bytes(gzip.compress(rows))
    for name in domain.QUESTIONS:
        rows = b"".join(orjson.dumps({"question": f"{name} {k}?", "answer": "so"}) + b"\n" for k in range(60))
        (tmp_path / name).write_bytes(rows)
    told = [f"Once upon a time, number {k}.\n\nOne day, Tom came.\n\nThe end of {k}." for k in range(60)]
    (tmp_path / domain.GENERAL).write_text("\n\n".join(told))
    sets = domain.write_sets(tmp_path, tmp_path)
    rows = {
        name: [orjson.loads(line) for line in path.read_bytes().splitlines()] for name, path in sets.items()
    }
    sides = [[row["text"] for row in rows[f"general_{side}"]] for side in ("train", "held_out")]
    assert sorted(sides[0] + sides[1]) == sorted(told) and min(map(len, sides)) > 0
    assert len(rows["domain_train"]) + len(rows["domain_held_out"]) == 120


def test_the_verdict_on_stages_says_each_claim_by_seed() -> None:
    def run(answers: float, general: float, domain_loss: float = 2.0) -> list[dict[str, float]]:
        start = {"domain": 3.0, "answers": 4.0, "general": 1.0}
        return [start, {"domain": domain_loss, "answers": answers, "general": general}]

    found = {
        "equal": [run(3.0, 2.0), run(3.0, 2.0)],
        "longer": [run(2.6, 2.0), run(2.4, 2.0)],
        "staged": [run(2.5, 3.0), run(2.5, 3.0)],
        "replayed": [run(2.5, 1.2), run(2.5, 2.9)],
    }
    claims = domain.verdict(found)["claims"]
    assert list(claims.values()) == [[True, True], [True, True], [True, False], [True, False]]
    left = domain.verdict(found)["share_of_the_rise_in_general_perplexity_left_by_replay"]["seeds"]
    assert left[0] == pytest.approx((math.exp(1.2) - math.e) / (math.exp(3.0) - math.e))


def test_tasks_become_sources_with_phrasings_and_their_category(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    for side in ("train", "test"):
        (tmp_path / f"subset_{side}_tasks.txt").write_text(f"task_{side}\ntask_missing\n")
        task = {
            "Definition": ["Say it."],
            "Categories": ["Saying"],
            "Instances": [{"input": "a", "output": ["b"]}, {"input": "c", "output": [" "]}],
        }
        (tmp_path / "tasks" / f"task_{side}.json").write_bytes(orjson.dumps(task))
    found = tasks.write_tasks(tmp_path, tmp_path)
    assert [[source["name"] for source in found[side]] for side in ("train", "test")] == [
        ["task_train"],
        ["task_test"],
    ]
    (source,) = found["train"]
    assert source["group"] == "Saying" and source["prompt"] == tasks.PHRASINGS
    assert Path(source["path"]).read_text() == '{"definition":"Say it.","input":"a","output":"b"}\n'


def test_rows_drawn_to_be_as_long_as_the_chosen_ones_are() -> None:
    lengths = [k % 100 for k in range(2000)]
    pool = Pool([], None, [], lengths)  # type: ignore[arg-type]

    def longest(pool: Pool, among: object, number: int, seed: int) -> list[int]:
        return sorted(range(2000), key=lambda k: -lengths[k])[:number]

    among = list(range(2000))
    drawn = as_long_as(longest)(pool, among, 100, 0)
    assert len(set(drawn)) == 100 and drawn != longest(pool, among, 100, 0)
    wanted = sum(lengths[k] for k in longest(pool, among, 100, 0))
    assert sum(lengths[k] for k in drawn) == pytest.approx(wanted, rel=0.02)
    plain = sum(lengths[k] for k in at_random(pool, among, 100, 0))
    assert plain < 0.7 * wanted  # the check would see rows that were drawn without regard to length


def test_synthetic_rows_are_as_long_as_real_ones_and_all_different(tmp_path: Path) -> None:
    real = [
        {"instruction": "Say this now", "input": "", "output": "a b c d"},
        {"instruction": "x", "output": ""},
    ]
    (tmp_path / "real.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in real))
    million.write_rows(tmp_path / "real.jsonl", tmp_path / "made.jsonl", 50)
    rows = [orjson.loads(line) for line in (tmp_path / "made.jsonl").read_bytes().splitlines()]
    assert len({row["instruction"] for row in rows}) == 50
    assert {len(row["output"]) for row in rows} == {7} and {"a b c d"} != {row["output"] for row in rows}


@pytest.mark.slow
def test_a_large_build_that_is_killed_ends_in_the_same_bytes(tmp_path: Path) -> None:
    real = [
        {"instruction": f"Say {k}", "input": "", "output": "one two three four " * (k % 9 + 1)}
        for k in range(90)
    ]
    (tmp_path / "real.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in real))
    found = million.study(tmp_path / "real.jsonl", tmp_path / "work", "marble", rows=120_000, kills=2)
    assert found["identical"] and found["build"]["rows"] == 120_000
    assert found["from_the_store"]["reused"] and found["build"]["peak_mb"] < 1500
