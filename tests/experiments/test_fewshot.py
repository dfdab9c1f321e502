"""Prompting beside tuning: which examples, in what layout, at what price."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.errors import UsageError
from burnish.experiments import fewshot
from burnish.experiments.asking import Asked
from burnish.experiments.fewshot import Question, choose
from burnish.experiments.prices import Prices, Spent, payback
from burnish.experiments.retrieval import BM25
from burnish.experiments.shots import LAYOUTS, Layout, as_turns
from burnish.models.assistant import Answer, load_assistant
from burnish.recipe.load import LoadedRecipe, load_recipe
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[..., Path]


def asked(prompt: str, answer: str) -> Asked:
    return Asked(({"role": "user", "content": prompt},), None, answer)


@pytest.fixture
def loaded(model_directory: ModelDirectory, tmp_path: Path) -> LoadedRecipe:
    data = write_jsonl(tmp_path / "train.jsonl", [conversation(index) for index in range(40)])
    return load_recipe(
        None,
        {
            "model": str(model_directory()), "datasets": str(data), "val_set_size": 6, "max_steps": 2,
            "global_batch_size": 8, "learning_rate": 1e-3,
        },
    )  # fmt: skip


def test_retrieval_finds_the_rare_word_and_not_the_common_ones() -> None:
    texts = [f"What is the capital of {name}?" for name in ("Peru", "Chad", "Oman")] + ["Who wrote Emma?"]
    index = BM25(texts)
    assert index.nearest("What is the capital of Chad?", 2)[0] == 1
    assert index.nearest("Emma: who is the author?", 1) == [3]
    assert index.nearest("nothing in common", 2) == [0, 1]


def test_fixed_examples_of_eight_hold_those_of_four_and_retrieved_ones_end_with_the_nearest() -> None:
    train = [asked(f"word{k} is what?", str(k)) for k in range(20)]
    four = choose(train, train[:2], 4, retrieved=False, seed=0)
    eight = choose(train, train[:2], 8, retrieved=False, seed=0)
    assert eight[0][:4] == four[0] == four[1]
    found = choose(train, [asked("what is word7?", "")], 3, retrieved=True, seed=0)
    assert found[0][-1] == train[7] and len(found[0]) == 3


def test_a_plain_answer_ends_with_its_line_and_each_layout_shows_prompt_and_answer(
    model_directory: ModelDirectory,
) -> None:
    base = load_assistant(str(model_directory()))
    shot, question = asked("What of the sun?", "Bright."), asked("What of the sea?", "Deep.")
    for name in LAYOUTS:
        ids = Layout(name).prompt_ids(base, [shot], question, room=1000)
        text = base.tokenizer.tokenizer.decode(ids)
        assert text.index("What of the sun?") < text.index("Bright.") < text.index("What of the sea?")
        assert "Deep." not in text
        assert len(Layout(name).prompt_ids(base, [shot] * 9, question, room=60)) <= 60
    ran_on = Answer(" Deep.\nQ: What of the wind?\nA:", "length", [1, 2], list(range(30)))
    cut = Layout("qa").ended(base, ran_on)
    assert (cut.text, cut.finish_reason) == ("Deep.", "stop") and len(cut.completion_ids) < 30
    assert Layout("chat").ended(base, ran_on) == ran_on


def test_examples_as_turns_come_after_the_questions_own_system_message() -> None:
    terse = {"role": "system", "content": "Be terse."}
    polite = {"role": "system", "content": "Be polite."}
    shot = Asked((polite, {"role": "user", "content": "The sun?"}), None, "Bright.")
    question = Asked((terse, {"role": "user", "content": "The sea?"}), None, "Deep.")
    said = [(message["role"], message["content"]) for message in as_turns([shot], question)]
    assert said == [
        ("system", "Be terse."),
        ("user", "The sun?"),
        ("assistant", "Bright."),
        ("user", "The sea?"),
    ]


def test_tuning_pays_after_its_cost_over_what_a_request_saves() -> None:
    spent = Spent(rows=1000, tokens=100_000)
    after, words = payback(Prices(), (160.0, 20.0), (20.0, 10.0), spent)
    assert after == 2000 and "2,000 requests" in words
    money = Prices(prompt=1.0, completion=2.0, training=5.0, row=0.01)
    after, words = payback(money, (1000.0, 100.0), (100.0, 50.0), spent)
    assert after == 15_000  # 15.00 once, 0.0012 - 0.0002 saved by each
    dear = Prices(prompt=1.0, completion=2.0, tuned_prompt=20.0)
    assert payback(dear, (1000.0, 100.0), (100.0, 50.0), spent)[0] is None


def test_all_arms_are_asked_once_on_the_same_rows_and_written(loaded: LoadedRecipe, tmp_path: Path) -> None:
    told: list[str] = []
    question = Question(shots=(1, 2), max_new_tokens=6)
    found = fewshot.fewshot(loaded, tmp_path / "few", question, told.append)
    names = ["zero-shot", "1-shot fixed", "2-shot fixed", "1-shot retrieved", "2-shot retrieved", "tuned"]
    assert [arm["name"] for arm in found["arms"]] == names
    assert {arm["n"] for arm in found["arms"]} == {6}
    tokens = {arm["name"]: arm["tokens_per_request"] for arm in found["arms"]}
    assert tokens["2-shot fixed"] > tokens["1-shot fixed"] > tokens["zero-shot"]
    assert json.loads((tmp_path / "few" / "fewshot.json").read_text())["arms"] == found["arms"]
    said = len(told)
    assert fewshot.fewshot(loaded, tmp_path / "few", question, told.append)["arms"] == found["arms"]
    assert len(told) == said  # nothing was asked again


def test_a_run_of_other_data_and_a_loss_are_refused(loaded: LoadedRecipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="loss"):
        fewshot.fewshot(loaded, tmp_path / "few", Question(metric="loss"))
    with pytest.raises(UsageError, match="training rows"):
        fewshot.fewshot(loaded, tmp_path / "few", Question(shots=(64,)))
    run = tmp_path / "run"
    run.mkdir()
    (run / "resolved.yaml").write_text(
        f"model: {loaded.recipe.model}\ndatasets: {tmp_path / 'train.jsonl'}\n"
    )
    with pytest.raises(UsageError, match="val_set_size"):
        fewshot._require_same(run, loaded)
