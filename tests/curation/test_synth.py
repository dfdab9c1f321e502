"""Distillation: rows with provenance, rejection, invention, and a run that is killed and pays for no answer twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from burnish.curation.answers import AnswerStore, Ask, Prices
from burnish.curation.endpoint import Endpoint, Manners
from burnish.curation.instruct import Inventor
from burnish.curation.likeness import Seen
from burnish.curation.prompts import Prompt, read_prompts, to_prompt
from burnish.curation.synth import JudgeGrader, Made, Settings, Verifier, distil
from burnish.curation.verdicts import VERIFIERS, grade, judge_ask
from burnish.curation.writing import write_made
from burnish.data.reject import ConversionError
from burnish.errors import DataError
from burnish.types import Origin, Rejected
from tests.conftest import write_jsonl
from tests.curation.stub import Stub, last_said, stub_endpoint

FAST = Manners(concurrency=4, timeout=5.0, retries=2, first_wait=0.001)
HERE = Origin("prompts.jsonl", 1)


def prompt(text: str, reference: str = "") -> Prompt:
    return Prompt(({"role": "user", "content": text},), HERE, reference, "CC0")


def made_by(stub: Stub, folder: Path, prompts: list[Prompt], settings: Settings, **more: Any) -> list[Made]:
    with AnswerStore(folder) as store, Endpoint(stub.url, "teacher", store=store, manners=FAST) as endpoint:
        return list(distil(prompts, endpoint, settings, **more))


def test_rows_say_where_they_come_from(tmp_path: Path) -> None:
    with stub_endpoint() as stub:
        settings = Settings(temperature=0.5, seed=7, system="Be brief.", licence="MIT")
        (one,) = made_by(stub, tmp_path, [prompt("Hi")], settings)
    (row,) = one.rows
    assert row["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "You said: Hi [7]"},
    ]
    assert row["license"] == "MIT"
    said = row["provenance"]
    assert (said["teacher"], said["place"], said["prompt"]) == ("teacher", stub.url, "prompts.jsonl:1")
    assert (said["prompt_license"], said["temperature"], said["seed"]) == ("CC0", 0.5, 7)
    assert len(said["request"]) == 32 and said["system"] == "Be brief."
    assert stub.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_of_k_samples_the_verified_ones_are_kept(tmp_path: Path) -> None:
    with stub_endpoint(lambda body: f"So it is {body['seed']}.") as stub:
        asked = [prompt("2?", "#### 2"), prompt("9?", "9"), prompt("no reference")]
        first, second, third = made_by(stub, tmp_path, asked, Settings(samples=4), grader=Verifier("number"))
    assert [row["messages"][-1]["content"] for row in first.rows] == ["So it is 2."]
    assert first.rows[0]["provenance"]["sample"] == 2 and first.lost == {"rejected by the grader": 3}
    assert not second.rows and second.reason == "rejected by the grader"
    assert not third.rows and third.reason == "not graded"


def test_a_judge_chooses_the_best_and_refuses_below_the_minimum(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        if body["model"] == "judge":
            return f"Fine.\nScore: {4 + last_said(body).count('!')}"
        return "good" + "!" * body["seed"]

    with (
        stub_endpoint(answer) as stub,
        AnswerStore(tmp_path) as store,
        Endpoint(stub.url, "teacher", store=store, manners=FAST) as teacher,
        Endpoint(stub.url, "judge", store=store, manners=FAST) as judge,
    ):
        best = list(distil([prompt("q")], teacher, Settings(samples=3), grader=JudgeGrader(judge)))
        strict = Settings(samples=3, minimum=5, keep_all=True)
        kept = list(distil([prompt("q")], teacher, strict, grader=JudgeGrader(judge)))
    assert [row["messages"][-1]["content"] for row in best[0].rows] == ["good!!"]
    assert best[0].rows[0]["provenance"]["grade"] == 6.0
    assert [row["messages"][-1]["content"] for row in kept[0].rows] == ["good!", "good!!"]
    assert sum(stub.paid.values()) == 6  # three answers, three verdicts, none twice


def test_cut_and_empty_answers_teach_nothing(tmp_path: Path) -> None:
    with stub_endpoint(lambda body: " ") as stub:
        assert made_by(stub, tmp_path, [prompt("q")], Settings())[0].reason == "empty answer"
        stub.answer, stub.finish_reason = (lambda body: "It goes on"), "length"
        assert made_by(stub, tmp_path, [prompt("p")], Settings())[0].reason == "cut answer"


def test_the_output_holds_no_duplicate_and_a_part_is_held_out(tmp_path: Path) -> None:
    with stub_endpoint() as stub:
        made = made_by(stub, tmp_path, [prompt(f"q{k % 20}") for k in range(40)], Settings())
    out = tmp_path / "out.jsonl"
    written = write_made(made, out, key={}, val_size=0.25)
    assert (written.prompts, written.rows, written.held_out) == (40, 15, 5)
    assert written.lost == {"duplicate": 20} and written.without_row == 20
    both = out.read_text() + (tmp_path / "out.heldout.jsonl").read_text()
    assert len({json.loads(line)["messages"][0]["content"] for line in both.splitlines()}) == 20
    with pytest.raises(DataError, match="0 rows from 0 prompts"):
        write_made([], tmp_path / "none.jsonl", key={})


def test_invented_instructions_are_new_and_the_same_again(tmp_path: Path) -> None:
    subjects = ["tea", "snow", "chess", "bread", "maps", "owls", "rust", "bells", "salt", "kites"]

    def answer(body: dict[str, Any]) -> str:
        k = body["seed"] % 10
        other = subjects[(k + 1) % 10]
        return f"1. Compare {subjects[k]} {other}\n2. Seed task number one here\n3. Draw an image of {k}"

    seeds = [prompt("Seed task number one here"), prompt("Another seed about cooking rice")]

    def invented() -> tuple[list[str], Inventor]:
        with AnswerStore(tmp_path) as store, Endpoint(stub.url, "t", store=store, manners=FAST) as teacher:
            inventor = Inventor(teacher, seeds)
            return [one.text for one in inventor.invent(10)], inventor

    with stub_endpoint(answer) as stub:
        first, inventor = invented()
        paid = sum(stub.paid.values())
        again, _ = invented()
        assert sum(stub.paid.values()) == paid
    assert first == again and len(set(first)) == len(first) == 10
    assert inventor.lost["like another"] and inventor.lost["not a task for text"]


def test_an_inventor_that_brings_nothing_new_comes_to_an_end(tmp_path: Path) -> None:
    with (
        stub_endpoint(lambda body: "1. Always the very same task") as stub,
        AnswerStore(tmp_path) as store,
        Endpoint(stub.url, "t", store=store, manners=FAST) as teacher,
    ):
        inventor = Inventor(teacher, [prompt("Seed one two three"), prompt("Other seed entirely")])
        assert len(list(inventor.invent(5))) == 1
    assert inventor.stopped_by == "nothing new"


def test_prompts_are_read_from_rows_of_any_format_and_from_lines(tmp_path: Path) -> None:
    file = write_jsonl(
        tmp_path / "p.jsonl",
        [
            {"instruction": "Sort", "input": "3 1", "output": "1 3", "license": "CC0"},
            {"messages": [{"role": "user", "content": "Hi"}]},
            {"conversations": [{"from": "human", "value": "A"}, {"from": "gpt", "value": "B"}]},
            {"instruction": "Seed", "instances": [{"input": "", "output": "x"}]},
            {"other": 1},
        ],
    )
    found = list(read_prompts(str(file)))
    assert [(one.text, one.reference) for one in found if isinstance(one, Prompt)] == [
        ("Sort\n\n3 1", "1 3"),
        ("Hi", ""),
        ("A", "B"),
        ("Seed", "x"),
    ]
    assert isinstance(found[-1], Rejected) and found[-1].origin.line == 5
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    lines = [one for one in read_prompts(str(tmp_path / "p.txt")) if isinstance(one, Prompt)]
    assert [(one.text, one.origin.line) for one in lines] == [("one", 1), ("two", 3)]
    with pytest.raises(ConversionError):
        to_prompt({"instruction": " "}, HERE)


def test_verifiers_and_grades() -> None:
    assert VERIFIERS["number"]("she pays $1,072.00.", "work\n#### 1072")
    assert not VERIFIERS["number"]("no number", "3")
    assert VERIFIERS["exact"]("Paris.", "paris") and VERIFIERS["contains"]("It is Paris, France.", "paris")
    assert not VERIFIERS["contains"]("Comparison", "paris")
    assert grade("Score: 3 at first\n**Score: 8.5**") == 8.5
    assert grade("Score: 11") is None and grade("good") is None
    text = str(judge_ask(({"role": "user", "content": "{answered}"},), "{asked}").messages[0]["content"])
    assert text.index("{answered}") < text.index("{asked}")


def test_likeness_by_index_is_likeness_by_all_pairs() -> None:
    words = list("abcdefgh")
    texts = [" ".join(words[(k * i) % 8] for i in range(1, 6)) for k in range(1, 60)]
    seen, kept = Seen(0.7), []
    for text in texts:
        mine = set(text.split())
        alike = any(len(mine & set(o.split())) >= 0.7 * len(mine | set(o.split())) for o in kept)
        assert (seen.nearest(text) is not None) == alike
        if not alike:
            kept.append(text)


PROGRAM = [sys.executable, "-c", "from burnish.__main__ import main; main()"]


def synth(stub: Stub, folder: Path, number: int) -> list[str]:
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"question {k}\n" for k in range(number)))
    words = ["data", "synth", str(prompts), "--out", str(folder / "out.jsonl"), "--teacher", "t"]
    return [*PROGRAM, *words, "--endpoint", stub.url, "--concurrency", "3", "--json"]


def wait_for(stub: Stub, answers: int) -> None:
    while sum(stub.paid.values()) < answers:
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_and_run_again_pays_for_no_answer_twice(tmp_path: Path, number: int) -> None:
    """After SIGTERM nothing is asked twice; after SIGKILL what was on its way, and no more."""
    with stub_endpoint(delay=0.01) as stub:
        environment = {**os.environ, "OPENAI_API_KEY": "sk-test-0123456789"}
        for stop_at in (15, 40):
            child = subprocess.Popen(
                synth(stub, tmp_path, 60), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            wait_for(stub, stop_at)
            child.send_signal(number)
            out, _ = child.communicate()
            assert child.returncode != 0, out
        done = subprocess.run(synth(stub, tmp_path, 60), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    twice = {name for name, count in stub.paid.items() if count > 1}
    lost = told["lost_in_flight"]
    assert len(stub.paid) == 60 and told["rows"] == 60
    if number == signal.SIGTERM:
        assert not twice and lost == 0
    else:
        assert len(twice) <= lost <= 2 * 3
    assert not any(b"sk-test" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert "sk-test" not in done.stdout + done.stderr


def test_the_stopped_run_ends_in_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    settings = Settings(samples=2, keep_all=True)
    prompts = [prompt(f"q{k}") for k in range(30)]
    with stub_endpoint() as stub:
        whole = made_by(stub, tmp_path / "a", prompts, settings)
        with AnswerStore(tmp_path / "b", max_cost=1e-3) as store:
            prices = Prices(1.0, 1.0)
            slow = Manners(concurrency=1)
            with Endpoint(stub.url, "teacher", store=store, manners=slow, prices=prices) as endpoint:
                part = list(distil(prompts, endpoint, settings))
        assert 0 < sum(bool(one.rows) for one in part) < 30 and part[-1].reason == "cost cap"
        again = made_by(stub, tmp_path / "b", prompts, settings)
    assert [one.rows for one in again] == [one.rows for one in whole]


def test_an_ask_of_a_local_model_is_answered_as_alone(model_directory: Any, tmp_path: Path) -> None:
    from burnish.evaluation.local_teacher import LocalTeacher

    asks = [Ask(({"role": "user", "content": f"What of {k}?"},), k % 2, 0.8 * (k % 2), 8) for k in range(4)]
    with AnswerStore(tmp_path / "a") as store:
        together = list(LocalTeacher(str(model_directory()), store=store).ask_all(iter(asks)))
    with AnswerStore(tmp_path / "b") as store:
        teacher = LocalTeacher(str(model_directory()), store=store)
        alone = [next(teacher.ask_all(iter([ask]))) for ask in reversed(asks)][::-1]
        assert teacher.num_asked == 4
        assert list(teacher.ask_all(iter(asks))) == alone and teacher.num_asked == 4
    assert together == alone
