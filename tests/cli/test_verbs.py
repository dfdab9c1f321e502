"""The verbs as a user types them: what they print, what they write, how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import conversation, write_jsonl

from burnish.checkpoint.files import list_checkpoints, load_checkpoint, write_checkpoint
from burnish.checkpoint.place import discard

ModelDirectory = Callable[..., Path]


@pytest.fixture
def recipe_file(model_directory: ModelDirectory, data_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    lines = [
        f"model: {model_directory()}",
        f"datasets: {data_file}",
        f"output_dir: {tmp_path / 'runs'}",
        "run_name: first",
        "val_set_size: 8",
        "max_steps: 3",
        "learning_rate: 1e-3",
        "global_batch_size: 8",
        'sample_prompts: ["What of the sun?"]',
    ]
    path.write_text("\n".join(lines))
    return path


def last_line(ran: Any) -> Any:
    return json.loads(ran.out.strip().splitlines()[-1])


def test_train_then_chat_compare_and_runs(burnish: Any, recipe_file: Path, tmp_path: Path) -> None:
    trained = burnish("train", str(recipe_file), "--json")
    assert trained.code == 0, trained.err
    result = last_line(trained)
    assert {
        "run",
        "steps",
        "train_loss",
        "eval_loss",
        "best_eval_loss",
        "graded_tokens",
        "rows",
        "stopped_by",
    } <= set(result)
    assert (result["steps"], result["stopped_by"]) == (3, "finished")
    assert result["rows"] == {"read": 40, "used": 40, "dropped": {}}
    run = result["run"]

    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps([{"role": "user", "content": "What of the sea?"}]))
    answered = burnish("chat", run, "--messages", str(messages), "--json", "--max-new-tokens", "5")
    assert answered.code == 0, answered.err
    answer = last_line(answered)
    assert set(answer) == {"text", "finish_reason", "prompt_ids", "completion_ids"}
    assert len(answer["completion_ids"]) <= 5

    compared = burnish("compare", run, "--json", "--max-new-tokens", "4")
    assert compared.code == 0, compared.err
    pair = last_line(compared)
    assert pair["prompt"] == "What of the sun?"
    assert {"base", "tuned"} <= set(pair)

    listed = burnish("runs", str(tmp_path / "runs"), "--json")
    assert last_line(listed)["steps"] == 3


def test_an_adapter_on_its_base_answers_as_the_merged_run_does(
    burnish: Any, recipe_file: Path, model_directory: ModelDirectory, tmp_path: Path
) -> None:
    trained = burnish(
        "train", str(recipe_file), "adapter=lora", "learning_rate=1e-2", "dtype=float32", "--json"
    )
    assert trained.code == 0, trained.err
    run = last_line(trained)["run"]
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps({"messages": [{"role": "user", "content": "What of the sea?"}]}))
    asked = ("--messages", str(messages), "--json", "--max-new-tokens", "8", "--temperature", "0")
    merged = burnish("chat", run, *asked)
    beside = burnish("chat", str(model_directory()), "--adapter", f"{run}/adapter", *asked)
    assert beside.code == 0, beside.err
    assert last_line(beside) == last_line(merged)


def test_check_reads_every_row_and_says_what_it_found(burnish: Any, recipe_file: Path) -> None:
    checked = burnish("check", str(recipe_file), "--json")
    assert checked.code == 0, checked.err
    report = last_line(checked)
    assert report["ok"] and report["violations"] == {}
    assert (report["rows"], report["kept"], report["views"]) == (40, 40, 40)
    assert report["steps"] == 3
    assert "train.jsonl: messages (" in report["formats"][0]
    assert "datasets" in {finding["key"] for finding in report["findings"]}  # 32 rows are few
    assert "every sequence keeps the rules" in burnish("check", str(recipe_file)).out


def test_check_finds_a_planted_mask_defect(
    burnish: Any, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from burnish.data import workers

    read = workers._read_answer

    def without_the_stop(*parts: Any) -> Any:
        for encoded in read(*parts):
            for view in encoded.views:
                view.weights[-1] = 0.0
            yield encoded

    monkeypatch.setenv("BURNISH_CACHE", str(recipe_file.parent / "cache"))
    monkeypatch.setattr(workers, "_read_answer", without_the_stop)
    checked = burnish("check", str(recipe_file), "--json")
    assert checked.code == 3
    assert last_line(checked)["violations"] == {"turn without its stop token": 40}


def test_preview_gives_every_example_that_training_would_feed(
    burnish: Any, model_directory: ModelDirectory, tmp_path: Path
) -> None:
    rows = [conversation(0), {"messages": [*conversation(1)["messages"], *conversation(2)["messages"]]}]
    data = write_jsonl(tmp_path / "two.jsonl", rows)
    shown = burnish("preview", str(data), "--model", str(model_directory()), "--json")
    assert shown.code == 0, shown.err
    first, second = map(json.loads, shown.out.strip().splitlines())
    assert (first["row"], first["turns"], second["turns"]) == (0, [1], [1, 3])
    for example in (first, second):
        num_tokens = len(example["input_ids"])
        assert example["position_ids"] == list(range(num_tokens))
        assert all(len(example[key]) == num_tokens for key in ("graded", "weight", "tokens"))
    graded = "".join(token for token, bit in zip(second["tokens"], second["graded"], strict=True) if bit)
    replies = [rows[1]["messages"][index]["content"] for index in (1, 3)]
    assert graded == "".join(f"{reply}<|im_end|>" for reply in replies)


def test_preview_writes_one_page_and_names_the_rows_it_left_out(
    burnish: Any, model_directory: ModelDirectory, tmp_path: Path
) -> None:
    data = write_jsonl(
        tmp_path / "some.jsonl", [conversation(0), {"messages": [{"role": "user", "content": "Hi"}]}]
    )
    page = tmp_path / "page.html"
    shown = burnish("preview", str(data), "--model", str(model_directory()), "--html", str(page))
    assert shown.code == 0, shown.err
    assert "some.jsonl:2" in shown.err
    text = page.read_text()
    assert "<html" in text and "http://" not in text and "https://" not in text


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("train", "absent.yaml"), 2, "absent.yaml"),
        (("chat", "no/such/place"), 3, "no/such/place"),
        (("resume", "."), 2, "not a run directory"),
        (("compare", "."), 2, "not a run directory"),
        (("preview", "absent.jsonl", "--model", "marble"), 2, "absent.jsonl"),
    ],
)
def test_what_is_not_there_ends_with_its_name_a_remedy_and_the_exit_code(
    burnish: Any,
    words: tuple[str, ...],
    code: int,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    ran = burnish(*words)
    assert ran.code == code
    assert part in ran.err and "remedy" in ran.err and "Traceback" not in ran.err


def test_resume_goes_on_and_says_so(burnish: Any, recipe_file: Path) -> None:
    run = last_line(burnish("train", str(recipe_file), "--json"))["run"]
    again = burnish("resume", run, "--json")
    assert again.code == 0, again.err
    assert last_line(again)["steps"] == 3


def test_verify_says_that_the_last_interval_comes_out_the_same_and_how_where_it_does_not(
    burnish: Any, recipe_file: Path, tmp_path: Path
) -> None:
    assert burnish("train", str(recipe_file), "save_steps=1").code == 0
    run = tmp_path / "runs" / "first"
    ran = burnish("resume", str(run), "--verify", "--json")
    assert ran.code == 0 and last_line(ran)["equal"] is True
    newest = list_checkpoints(run / "checkpoints")[-1]
    saved = load_checkpoint(newest)
    saved.state["tokens"] += 1
    discard(newest)
    write_checkpoint(run / "checkpoints", saved)
    ran = burnish("resume", str(run), "--verify")
    assert ran.code == 1 and "state tokens" in ran.out


def test_an_interrupted_run_ends_with_130_and_says_how_to_go_on(
    burnish: Any, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burnish.training.run.interruptible", lambda: nullcontext(lambda: True))
    ran = burnish("train", str(recipe_file))
    assert ran.code == 130 and "burnish resume" in ran.out
