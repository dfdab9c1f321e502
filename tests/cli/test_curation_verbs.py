"""`burnish data score | select | bias | synth` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Burnish
from tests.conftest import conversation, write_jsonl
from tests.curation import biased
from tests.curation.stub import last_said, stub_endpoint


def test_the_verb_reports_what_was_planted(burnish: Burnish, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", biased.always_a(biased.balanced(1)))
    ran = burnish("data", "bias", str(data), "--json")
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    assert told["biases"] == ["position:A"] and told["rows"] == 500
    finding = told["findings"][0]
    assert finding["rate"] == 1.0 and finding["baseline"] == 0.25 and len(finding["examples"]) == 3


def test_distillation_from_the_command_line_keeps_rows_answers_and_no_key(
    burnish: Burnish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret-xyz")
    data = write_jsonl(tmp_path / "p.jsonl", [conversation(k) for k in range(6)])
    out = tmp_path / "out.jsonl"
    with stub_endpoint(lambda body: f"Well: {last_said(body)}") as stub:
        words = ("data", "synth", str(data), "--out", str(out), "--teacher", "t", "--endpoint", stub.url)
        ran = burnish(*words, "--key-env", "TEACHER_KEY", "--license", "MIT", "--json")
        assert ran.code == 0, ran
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert burnish(*words).code == 2  # the file is there
        again = burnish(*words, "--overwrite")
        assert again.code == 0 and sum(stub.paid.values()) == 6
    told = json.loads(ran.out)
    assert (told["rows"], told["prompts"], told["kept_answers"]) == (6, 6, 6)
    assert rows[0]["license"] == "MIT" and rows[0]["provenance"]["prompt"].endswith("p.jsonl:1")
    assert all("sk-secret" not in file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert burnish("data", "bias", str(out), "--json").code == 0  # it reads back as rows


def test_instructions_are_invented_answered_and_split(burnish: Burnish, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("".join(f"Seed {word} about {word}\n" for word in biased.THINGS))

    def answer(body: dict[str, Any]) -> str:
        if "numbered from 1" in last_said(body):
            return (
                f"1. Explain {biased.WORDS[body['seed'] % 11]} to a {biased.THINGS[body['seed'] % 10]} owner"
            )
        return f"An answer to: {last_said(body)}"

    with stub_endpoint(answer) as stub:
        ran = burnish(
            "data", "synth", str(seeds), "--out", str(tmp_path / "out.jsonl"), "--teacher", "t",
            "--endpoint", stub.url, "--instruct", "8", "--val-size", "2", "--json",
        )  # fmt: skip
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    assert (told["prompts"], told["rows"], told["held_out"]) == (8, 6, 2)


def test_scores_are_kept_and_rows_selected_by_them_with_reasons(burnish: Burnish, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [conversation(k) for k in range(30)])
    scores, out = tmp_path / "scores.jsonl", tmp_path / "chosen.jsonl"

    def answer(body: dict[str, Any]) -> str:
        return f"Score: {1 + last_said(body).count('and so it stays') * 2}"

    with stub_endpoint(answer) as stub:
        words = ("data", "score", str(data), "--scores", str(scores), "--judge", "j", "--endpoint", stub.url)
        prices = ("--price-prompt", "1", "--price-completion", "10")
        capped = burnish(*words, *prices, "--max-cost", "0.007", "--json")
        first = json.loads(capped.out)
        assert capped.code == 0 and 0 < first["computed"] < 30 and first["unscored"] == 30 - first["computed"]
        second = json.loads(burnish(*words, "--json").out)
        assert (second["computed"], second["kept"]) == (30 - first["computed"], first["computed"])
        assert set(stub.paid.values()) == {1}
    ran = burnish(
        "data", "select", str(data), "-n", "5", "--out", str(out), "--scores", str(scores), "--score", "judge",
        "--quality-weight", "0.9", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    assert (told["read"], told["kept"]) == (30, 5)
    assert all("and so it stays" in line for line in out.read_text().splitlines())
    entries = [json.loads(line) for line in Path(told["ledger"]).read_text().splitlines()]
    assert len(entries) == 30
    assert all("score" in entry["detail"] for entry in entries if entry["action"] == "kept")


def test_a_model_scores_rows_and_its_hidden_states_tell_them_apart(
    burnish: Burnish, tmp_path: Path, model_directory: Any
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [conversation(k) for k in range(12)])
    scores, out = tmp_path / "scores.jsonl", tmp_path / "chosen.jsonl"
    model = str(model_directory())
    words = ("data", "score", str(data), "--scores", str(scores), "--model", model, "--json")
    assert json.loads(burnish(*words).out)["computed"] == 12
    assert json.loads(burnish(*words).out) | {"computed": 0, "kept": 12} == json.loads(burnish(*words).out)
    select = ("data", "select", str(data), "-n", "4", "--out", str(out), "--scores", str(scores))
    ran = burnish(*select, "--score", "-ifd", "--embeddings", model, "--method", "k-centre")
    assert ran.code == 0 and len(out.read_text().splitlines()) == 4
    wrong = burnish(*select, "--score", "quality", "--overwrite", "--json")
    assert wrong.code == 2 and "holds ifd, nll, solved, unknown" in wrong.out


def test_a_judge_without_an_endpoint_and_two_scorers_are_usage_errors(
    burnish: Burnish, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [conversation(0)])
    words = ("data", "score", str(data), "--scores", str(tmp_path / "s.jsonl"))
    assert burnish(*words, "--judge", "j").code == 2
    assert burnish(*words, "--judge", "j", "--model", "m").code == 2
    assert burnish(*words).code == 2
