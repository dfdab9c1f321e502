"""Votes: blind, resumable, undoable; judges in both orders; what they add up to; what tuning is given of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from burnish.curation.answers import Ask, NoReply, Reply
from burnish.errors import DataError
from burnish.evaluation.arena import Session
from burnish.evaluation.judge import judge_pairs, read_verdict, score_pairs
from burnish.evaluation.outputs import Pair, one_model, pair_up, read_outputs
from burnish.evaluation.tally import tally
from burnish.evaluation.votes import VoteFile, preference_pairs, read_votes


def pairs(count: int = 12) -> list[Pair]:
    return [
        Pair((f"Question {k}?",), ("tuned", "base"), ((f"Good {k}.",), (f"Bad {k}.",))) for k in range(count)
    ]


def always(session: Session, wanted: str) -> None:
    while (shown := session.next()) is not None:
        left = shown.left[0].startswith(wanted)
        session.vote("a" if left else "b")


def test_a_rater_is_shown_no_name_and_sides_that_change(tmp_path: Path) -> None:
    sides = []
    session = Session(pairs(200), VoteFile(tmp_path / "v.jsonl"), rater="ann")
    while (shown := session.next()) is not None:
        assert "tuned" not in repr(shown) and "base" not in repr(shown)
        sides.append(shown.left[0].startswith("Good"))
        session.vote("t")
    assert 70 < sum(sides) < 130
    other = Session(pairs(200), VoteFile(tmp_path / "w.jsonl"), rater="bob").next()
    assert other is not None and other.number == 1


def test_votes_are_for_models_wherever_they_stood_and_a_session_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    first = Session(pairs(), VoteFile(path), rater="ann")
    for _ in range(5):
        shown = first.next()
        assert shown is not None
        first.vote("a" if shown.left[0].startswith("Good") else "b")
    again = Session(pairs(), VoteFile(path), rater="ann")
    assert again.done == 5
    always(again, "Good")
    votes = read_votes([path])
    assert [vote.choice for vote in votes] == ["a"] * 12
    assert len({vote.pair.id for vote in votes}) == 12
    assert {vote.first for vote in votes} == {"a", "b"}


def test_undo_takes_back_the_last_vote_and_shows_its_pair_again(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    session = Session(pairs(), VoteFile(path), rater="ann")
    shown = session.next()
    session.vote("x")
    other = Session(pairs(), VoteFile(path), rater="bob")
    other.vote("t")
    assert session.undo() and session.next() == shown
    assert not session.undo()
    assert [(vote.rater, vote.choice) for vote in read_votes([path])] == [("bob", "tie")]
    assert len(path.read_text().splitlines()) == 3, "nothing is ever rewritten"


def test_a_line_torn_off_by_a_kill_costs_that_vote_alone(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    session = Session(pairs(), VoteFile(path), rater="ann")
    session.vote("t")
    session.vote("t")
    path.write_bytes(path.read_bytes()[:-40])
    resumed = Session(pairs(), VoteFile(path), rater="ann")
    assert resumed.done == 1
    resumed.vote("t")
    assert len(read_votes([path])) == 2


class Judge:
    """Answers by a rule on what it is shown, and counts what it was asked."""

    place = "test"

    def __init__(self, rule: str, name: str = "judge") -> None:
        self.rule, self.name, self.asked = rule, name, 0

    def ask_all(self, asks: Iterator[Ask]) -> Iterator[Reply | NoReply]:
        for ask in asks:
            self.asked += 1
            text = str(ask.messages[0]["content"])
            good_first = text.index("Good") < text.index("Bad") if "Good" in text and "Bad" in text else True
            verdict = {"honest": "A" if good_first else "B", "first": "A", "mute": "hm", "long": "tie"}[
                self.rule
            ]
            if self.rule == "long" and self.asked > 4:
                yield NoReply("k", "cost cap", "")
                return
            yield Reply(
                "k", f"Because.\n**Verdict: {verdict}**" if verdict != "hm" else "hm", "stop", 1, 1, 0.0, "j"
            )


def test_a_judge_that_sees_quality_wins_in_both_orders_and_one_that_likes_a_place_ties(
    tmp_path: Path,
) -> None:
    honest = VoteFile(tmp_path / "h.jsonl")
    judge = Judge("honest")
    assert judge_pairs(judge, pairs(), honest, again=3).verdicts == 27
    report = tally(honest.votes)
    assert (report["pairs"][0]["win_rate"], report["pairs"][0]["model"]) == (100.0, "tuned")
    assert report["raters"]["judge"]["both_orders_agree"] == 1
    assert report["raters"]["judge"]["asked_again"]["kappa"] == 1
    assert report["position_bias"]["share_first"] == 0.5
    judge_pairs(judge, pairs(), honest, again=3)
    assert judge.asked == 27, "what is voted is not asked again"

    placed = VoteFile(tmp_path / "p.jsonl")
    judge_pairs(Judge("first"), pairs(), placed)
    report = tally(placed.votes)
    assert report["pairs"][0]["win_rate"] == 50.0
    assert report["position_bias"]["share_first"] == 1 and report["position_bias"]["p_value"] < 0.001
    assert preference_pairs(placed.votes) == []


def test_verdicts_that_cannot_be_read_and_a_cost_cap_are_counted(tmp_path: Path) -> None:
    mute = VoteFile(tmp_path / "m.jsonl")
    assert judge_pairs(Judge("mute"), pairs(), mute).unread == 24
    assert mute.votes == []
    capped = VoteFile(tmp_path / "c.jsonl")
    assert judge_pairs(Judge("long"), pairs(), capped).stopped_by == "cost cap"
    assert len(capped.votes) == 4


def test_equal_answers_tie_without_asking(tmp_path: Path) -> None:
    judge, votes = Judge("first"), VoteFile(tmp_path / "v.jsonl")
    judge_pairs(judge, [Pair(("Q?",), ("x", "y"), (("Same.",), ("Same.",)))], votes)
    assert judge.asked == 0 and [vote.choice for vote in votes.votes] == ["tie", "tie"]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: A", "b"),
        ("I first thought verdict: A.\nVerdict: **B**", "a"),
        ("**Verdict:** tie", "tie"),
        ("Verdict: both", None),
        ("A", None),
    ],
)
def test_the_last_verdict_counts_for_the_model_that_stood_there(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply, first="b") == verdict


def test_a_reward_model_decides_by_its_numbers_and_sees_no_places(tmp_path: Path) -> None:
    class Longer:
        name = "reward"

        def rewards(self, answers: object) -> list[float]:
            return [float(len(answered[-1])) for _, answered in answers]  # type: ignore[attr-defined]

    votes = VoteFile(tmp_path / "v.jsonl")
    score_pairs(Longer(), pairs(), votes)
    assert {vote.choice for vote in votes.votes} == {"a"}
    assert tally(votes.votes)["position_bias"] is None


def test_raters_agreement_and_many_models_strengths_are_told(tmp_path: Path) -> None:
    votes = VoteFile(tmp_path / "v.jsonl")
    for rater, wanted in (("ann", "Good"), ("bob", "Good"), ("cy", "Bad")):
        always(Session(pairs(), votes, rater=rater), wanted)
    report = tally(votes.votes)
    assert report["agreement"]["ann / bob"]["share"] == 1
    assert report["agreement"]["ann / cy"]["share"] == 0
    assert "all" in report["agreement"] and report["strengths"] is None
    others = [Pair(p.asked, ("base", "random"), (p.answers[1], ("?",))) for p in pairs()]
    always(Session(others, votes, rater="ann"), "Bad")
    assert list(tally(votes.votes)["strengths"]) == ["tuned", "base", "random"]


def test_both_bad_and_ties_are_no_preference_and_two_turns_are_whole_talks(tmp_path: Path) -> None:
    votes = VoteFile(tmp_path / "v.jsonl")
    two = Pair(("One?", "Two?"), ("x", "y"), (("1", "2"), ("3", "4")))
    session = Session([*pairs(2), two], votes, rater="ann")
    keys = {"Question 0?": "x", "Question 1?": "t"}
    while (shown := session.next()) is not None:
        session.vote(keys.get(shown.asked[0]) or ("a" if shown.left == ("1", "2") else "b"))
    (row,) = preference_pairs(votes.votes)
    assert [message["content"] for message in row["chosen"]] == ["One?", "1", "Two?", "2"]
    assert [message["content"] for message in row["rejected"]] == ["One?", "3", "Two?", "4"]
    always(Session(pairs(2), votes, rater="bob"), "Good")
    always(Session(pairs(2), votes, rater="cy"), "Good")
    plain = {row["prompt"][0]["content"]: row for row in preference_pairs(votes.votes) if "prompt" in row}
    assert plain["Question 0?"]["prompt"] == [{"role": "user", "content": "Question 0?"}]
    assert plain["Question 0?"]["chosen"] == [{"role": "assistant", "content": "Good 0."}]
    assert (plain["Question 0?"]["votes"], plain["Question 0?"]["margin"]) == (3, pytest.approx(2 / 3))


def test_benchmarks_files_are_read_and_paired(tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    one.write_text(json.dumps([{"instruction": "Why?", "output": "So.", "generator": "m1"}]))
    other = tmp_path / "other.jsonl.gz"
    other.write_bytes(gzip.compress(b'{"instruction":"Why?","output":"No.","generator":"m2"}\n'))
    (pair,) = pair_up("m1", read_outputs(one)["m1"], "m2", read_outputs(other)["m2"])
    assert (pair.asked, pair.answers) == (("Why?",), (("So.",), ("No.",)))

    questions = tmp_path / "question.jsonl"
    questions.write_text('{"question_id":81,"turns":["First?","Second?"]}\n')
    bench = tmp_path / "bench.jsonl"
    bench.write_text(
        '{"question_id":81,"model_id":"x","choices":[{"index":0,"turns":["1","2"]}]}\n'
        '{"question_id":81,"model":"y","turns":["3","4"]}\n'
    )
    found = read_outputs(bench, questions=questions)
    assert found == {"x": {("First?", "Second?"): ("1", "2")}, "y": {("First?", "Second?"): ("3", "4")}}
    with pytest.raises(DataError, match="--questions"):
        read_outputs(bench)
    with pytest.raises(DataError, match="x, y"):
        one_model(found, bench)


def test_annotations_count_as_votes(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    record = {
        "instruction": "Why?",
        "output_1": "No.",
        "generator_1": "ref",
        "output_2": "So.",
        "generator_2": "m",
    }
    rows = [
        {**record, "instruction": f"Why {k}?", "preference": p} for k, p in enumerate((1, 2, 1.97, 0, None))
    ]
    path.write_text(json.dumps(rows))
    votes = read_votes([path])
    assert [vote.choice for vote in votes] == ["b", "a", "a", "tie"]
    (pair,) = tally(votes)["pairs"]
    assert pair["model"] == "m"
    assert pair["win_rate"] == pytest.approx((0 + 100 + 97 + 50) / 4), "a share of 0.97 is no whole win"
    path.write_text("nonsense")
    with pytest.raises(DataError, match="broken JSON"):
        read_votes([path])


def annotated(path: Path, preferences: list[Any], **more: Any) -> Path:
    """A file of annotations: one prompt for each preference."""
    record = {"output_1": "No.", "generator_1": "ref", "output_2": "So.", "generator_2": "m", **more}
    rows = [{**record, "instruction": f"Why {k}?", "preference": p} for k, p in enumerate(preferences)]
    path.write_text(json.dumps(rows))
    return path


def test_annotations_that_name_nothing_or_are_none_are_left_out(tmp_path: Path) -> None:
    path = annotated(tmp_path / "a.json", [2, float("nan"), None, "nan", 1.5, 0.0, "1.25", 1.0, 2.0004])
    assert "NaN" in path.read_text()
    votes = read_votes([path])
    assert [vote.won for vote in votes] == [1, 0.5, 0.5, 0.25, 0, 1]
    without = [{key: value for key, value in row.items() if key != "preference"} for row in
               json.loads(path.read_text())]  # fmt: skip
    path.write_text(json.dumps(without))
    assert read_votes([path]) == []
    for wrong in (0.3, 3, "won"):
        with pytest.raises(DataError, match=r"a\.json:1"):
            read_votes([annotated(path, [wrong])])


def test_a_prompt_that_stands_twice_makes_no_judge_of_the_annotator(tmp_path: Path) -> None:
    path = annotated(tmp_path / "a.json", [2, 2, 2, 1])
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))
    (pair,) = tally(read_votes([path]))["pairs"]
    assert (pair["prompts"], pair["win_rate"]) == (4, 75.0)
    path.write_text(json.dumps([*rows, {**rows[0], "output_2": "Another answer.", "preference": 1}]))
    (pair,) = tally(read_votes([path]))["pairs"]
    assert (pair["prompts"], pair["win_rate"]) == (5, 60.0), "another answer is another pair"


def test_models_that_change_sides_from_row_to_row_are_one_comparison(tmp_path: Path) -> None:
    path = annotated(tmp_path / "a.json", [2, 2, 1.8, 1])
    rows = json.loads(path.read_text())
    for row in rows[2:]:
        row["generator_1"], row["generator_2"] = row["generator_2"], row["generator_1"]
        row["output_1"], row["output_2"] = row["output_2"], row["output_1"]
        row["preference"] = 3 - row["preference"]
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps(rows))
    (one,), (other,) = (tally(read_votes([each]))["pairs"] for each in (path, turned))
    assert one["win_rate"] == pytest.approx(other["win_rate"]) == pytest.approx(70)
    assert one["length_controlled_win_rate"] == pytest.approx(other["length_controlled_win_rate"])
    chosen = [
        [row["chosen_model"] for row in preference_pairs(read_votes([each]))] for each in (path, turned)
    ]
    assert chosen[0] == chosen[1] == ["m", "m", "m", "ref"]
