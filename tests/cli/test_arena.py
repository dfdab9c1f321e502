"""`burnish arena` and `burnish compare --judge` as a user types them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.curation.stub import stub_endpoint


@pytest.fixture
def outputs(tmp_path: Path) -> tuple[str, str]:
    files = []
    for name in ("tuned", "base"):
        path = tmp_path / f"{name}.json"
        rows = [
            {"instruction": f"Question {k}?", "output": f"{name} answer {k}", "generator": f"secret-{name}"}
            for k in range(6)
        ]
        path.write_text(json.dumps(rows))
        files.append(str(path))
    return files[0], files[1]


def test_a_person_votes_blind_undoes_stops_and_goes_on(
    burnish: Any, outputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = tmp_path / "votes.jsonl"
    words = ("arena", "vote", *outputs, "--rater", "ann", "--votes", str(votes))
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n?\nu\nt\nx\nq\n"))
    ran = burnish(*words)
    assert ran.code == 0, ran.err
    assert "With 6 prompts" in ran.out and "2 of 6 voted" in ran.out
    assert "secret" not in ran.out
    monkeypatch.setattr("sys.stdin", io.StringIO("b\n" * 9))
    ran = burnish(*words)
    assert "2 of 6 are done" in ran.out and "6 of 6 voted" in ran.out

    report = json.loads(burnish("arena", "report", str(votes), "--json").out)
    assert report["pairs"][0]["prompts"] == 6
    assert report["choices"]["tie"] == 1 and report["choices"]["both_bad"] == 1
    shown = burnish("arena", "report", str(votes))
    assert "secret-tuned wins" in shown.out and "ann: 6 votes" in shown.out
    pairs = tmp_path / "pairs.jsonl"
    assert json.loads(burnish("arena", "export", str(votes), "--out", str(pairs), "--json").out)["pairs"] == 4
    assert set(json.loads(pairs.read_text().splitlines()[0])) >= {"prompt", "chosen", "rejected"}


def test_a_judge_behind_an_endpoint_is_asked_once_for_each_order(
    burnish: Any, outputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-written")

    def likes_tuned(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        return "Verdict: A" if text.index("tuned answer") < text.index("base answer") else "Verdict: B"

    votes = tmp_path / "votes.jsonl"
    with stub_endpoint(likes_tuned) as stub:
        words = ("arena", "judge", *outputs, "--judge", "j", "--endpoint", stub.url, "--votes", str(votes))
        ran = burnish(*words, "--again", "2", "--json")
        assert ran.code == 0, ran.err
        again = burnish(*words, "--again", "2")
        assert sum(stub.paid.values()) == 14
        assert "secret" not in json.dumps(stub.bodies)
    report = json.loads(ran.out)
    assert report["pairs"][0]["win_rate"] == 100 and report["raters"]["j"]["both_orders_agree"] == 1
    assert "asked again, kappa 1.00" in again.out
    assert "sk-not" not in "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())


def test_power_is_told_before_any_vote(burnish: Any) -> None:
    found = json.loads(burnish("arena", "power", "--prompts", "80", "--json").out)
    assert found["smallest_visible"] == pytest.approx(10.96, abs=0.01)
    assert found["prompts_to_see"] == 385
    assert "about 400" in burnish("arena", "power", "--prompts", "80").out
    assert burnish("arena", "power", "--prompts", "0").code == 2


def test_two_models_are_compared_and_judged(
    burnish: Any, model_directory: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(model_directory())
    prompts = ("What of the sun?", "What of the sea?")
    short = ("--max-new-tokens", "4", "--json")
    plain = burnish("compare", model, model, *prompts, *short)
    assert plain.code == 0, plain.err
    assert set(json.loads(plain.out.splitlines()[0])) == {"prompt", "a", "b"}
    with stub_endpoint(lambda body: "Verdict: tie") as stub:
        words = ("compare", model, "marble", *prompts, "--judge", "j", "--endpoint", stub.url)
        judged = burnish(*words, *short)
    assert judged.code == 0, judged.err
    (pair,) = json.loads(judged.out.splitlines()[-1])["pairs"]
    assert (pair["model"], pair["win_rate"], pair["prompts"]) == (model, 50, 2)
    local = burnish("compare", model, "marble", *prompts, "--judge", model, "--votes", "local.jsonl", *short)
    assert local.code == 0, local.err
    assert "could not be read" in local.err
    assert burnish("arena", "judge", "a.json", "b.json", "--judge", "j").code == 3
