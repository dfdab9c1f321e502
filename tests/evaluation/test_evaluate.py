"""A model on a set: training's own loss, answers in batches as alone, choices by likelihood, all offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from burnish.errors import DataError
from burnish.evaluation.answering import ask, leaks, mark_answer, repeats
from burnish.evaluation.evaluate import Settings, ask_questions, show_rows
from burnish.evaluation.examination import file_set
from burnish.evaluation.questions import Question, read_questions
from burnish.models.assistant import Answer, Assistant, load_assistant
from burnish.models.generate import generate
from burnish.models.load import load_model
from burnish.types import Completion, Origin, Row
from tests.conftest import conversation, write_jsonl

ModelDirectory = Callable[..., Path]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TINY = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiny-lm"


@pytest.fixture(scope="module")
def base(model_directory: ModelDirectory) -> Assistant:
    return load_assistant(str(model_directory()), dtype=torch.float32)


def rows_of(number: int) -> list[Row]:
    texts = [conversation(k)["messages"] for k in range(number)]
    return [
        Row(k, k % 2, Origin("t.jsonl", k + 1), Completion(a["content"] + " ", b["content"]))
        for k, (a, b) in enumerate(texts)
    ]


def test_the_loss_of_rows_is_that_of_plain_transformers(base: Assistant) -> None:
    rows = rows_of(6)
    outcome = show_rows(base, rows, ["even", "odd"], Settings())
    total = count = hits = 0.0
    for row in rows:
        (view,) = base.tokenizer.encoder.encode(row)
        ids = torch.tensor([view.input_ids])
        with torch.no_grad():
            logits = base.model(input_ids=ids).logits[0].float()
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        graded = torch.tensor(view.weights[1:]) != 0
        total += float(nll[graded].sum())
        count += float(graded.sum())
        hits += float((logits[:-1].argmax(-1) == ids[0, 1:])[graded].sum())
    figures = outcome.figures()
    assert figures["loss"].value == pytest.approx(total / count, rel=1e-4)
    assert figures["token_accuracy"].value == pytest.approx(hits / count)
    size = sum(len(row.content.completion.encode()) for row in rows)  # type: ignore[union-attr]
    assert sum(mark["bits_per_byte"][1] for mark in outcome.marks) == size
    assert set(outcome.by_source()) == {"even", "odd"}


def test_every_answer_of_a_conversation_has_its_own_figures(base: Assistant, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(CHATML)
    chat = load_assistant(base.name, chat_template=str(template), dtype=torch.float32)
    from burnish.models.load import add_token_rows

    add_token_rows(chat.model, len(chat.tokenizer), chat.tokenizer.new_ids, like=chat.tokenizer.like)
    turns = [*conversation(1)["messages"], *conversation(2)["messages"]]
    path = write_jsonl(tmp_path / "two.jsonl", [{"messages": turns}, conversation(3)])
    given = file_set(str(path), limit=None)
    figures = show_rows(chat, given.rows, given.sources, Settings()).figures()
    assert figures["loss@answer 1"].n == 2 and figures["loss@answer 2"].n == 1
    assert {"token_accuracy@answer 1", "perplexity@answer 2"} <= figures.keys()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen2"])
def test_answers_in_a_padded_batch_are_those_of_each_alone(
    family: str, model_directory: ModelDirectory
) -> None:
    assistant = load_assistant(str(model_directory(family)), dtype=torch.float32)
    asked = [Question("t", "all", "What of the sun? " * k, ("exact",), ("x",)) for k in (1, 5, 2, 9, 3)]
    together = ask(assistant, asked, max_new_tokens=10, batch_size=5)
    alone = [ask(assistant, [one], max_new_tokens=10)[0] for one in asked]
    assert together == alone


def test_a_longer_neighbour_does_not_cut_an_answer_short(model_directory: ModelDirectory) -> None:
    model = load_model(str(model_directory()), dtype=torch.float32)
    model.config.max_position_embeddings = 24
    prompts = [[5, 9, 11], [7] * 20]
    together = generate(model, prompts, stop_ids=[], max_new_tokens=16, batch_size=2)
    assert [len(one.completion_ids) for one in together] == [16, 4]
    assert together[0] == generate(model, prompts[:1], stop_ids=[], max_new_tokens=16)[0]


def test_choices_are_weighed_as_a_plain_sum_of_log_probabilities(base: Assistant) -> None:
    question = Question("t", "all", "The sun is", ("likelihood",), (), ("old and so it stays", "warm"), 1)
    sums = []
    for choice in question.choices:
        (view,) = base.tokenizer.encoder.encode(
            Row(0, 0, Origin("t", 1), Completion("The sun is", " " + choice))
        )
        ids = torch.tensor([view.input_ids])
        with torch.no_grad():
            scores = base.model(input_ids=ids).logits[0].float().log_softmax(-1)
        at = [k for k, w in enumerate(view.weights) if w and view.input_ids[k] not in base.stop_ids]
        sums.append(sum(float(scores[k - 1, view.input_ids[k]]) for k in at))
    marks = ask_questions(base, [question], Settings()).marks[0]
    assert marks["choice_accuracy"][0] == float(sums[1] > sums[0])
    per_byte = [total / len(choice) for total, choice in zip(sums, question.choices, strict=True)]
    assert marks["choice_accuracy_normalised"][0] == float(per_byte[1] > per_byte[0])


def test_each_metric_marks_its_answers() -> None:
    def marks(text: str, *metrics: str, **more: Any) -> dict[str, float]:
        question = Question("t", "all", "?", metrics, **more)
        return {
            name: above / below
            for name, (above, below) in mark_answer(question, Answer(text, "stop", [], [])).items()
        }

    assert marks("So 4", "exact", "contains", "numeric", expected=("4",)) == {
        "exact_match": 0.0, "contains": 1.0, "numeric_match": 1.0,
    }  # fmt: skip
    assert marks("B", "choice", choices=("x", "y"), right=1) == {"choice_match": 1.0}
    assert marks('{"a": 1}', "json", json={"a": 2}) == {"json_valid": 1.0, "json_match": 0.0}


def test_a_runaway_repeats_itself_and_a_leak_shows_the_template(base: Assistant) -> None:
    assert (
        repeats([9, 8, *[1, 2, 3] * 4, 0]) and repeats([7] * 12) and not repeats([7] * 11) and not repeats([])
    )
    stop = base.stop_ids[0]
    assert not leaks(Answer("fine", "stop", [], [5, 6, stop]), base)
    assert leaks(Answer("fine", "stop", [], [5, stop, 6, stop]), base)
    for text in ("Hi<|im_start|>user", "ok\n### Response: x", "a [/INST] b", "User: hi"):
        assert leaks(Answer(text, "stop", [], []), base)
    assert not leaks(Answer("The user: a person. 1 < 2 | 3", "stop", [], []), base)


def test_local_files_and_benchmarks_are_read_as_questions(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "2+2?", "expected": 4, "metric": "numeric", "source": "sums"},
        {"question": "How many?", "answer": "so it is <<1+1=2>>2\n#### 2"},
        {"prompt": "Sky?", "choices": ["blue", "loud"], "expected": "B"},
        {
            "instruction": "Which?\n\nAnswer format: answer1/answer2",
            "output": "it is answer2",
            "answer": "answer2",
        },
        {"prompt": "Do", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {
            "question": [[{"role": "user", "content": "Add"}]],
            "function": [{"name": "f"}],
            "ground_truth": [{"f": {}}],
        },
    ]
    found = read_questions(str(write_jsonl(tmp_path / "q.jsonl", rows)))
    assert found is not None
    assert [one.metrics[0] for one in found] == [
        "numeric",
        "numeric",
        "likelihood",
        "likelihood",
        "ifeval",
        "tool_call",
    ]
    assert (
        found[2].right == 1 and found[3].choices == ("it is answer1", "it is answer2") and found[3].right == 1
    )
    assert read_questions(str(write_jsonl(tmp_path / "d.jsonl", [conversation(0)]))) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "expected": "b", "metric": "bleu"}, "bleu"),
        ({"prompt": "a", "metric": "exact"}, "expected None"),
        ({"prompt": "a", "choices": ["x"], "expected": "z"}, "choices"),
        ({"expected": "b"}, "keys expected"),
        ({"messages": [{"role": "assistant", "content": "x"}], "expected": "b"}, "assistant's turn"),
    ],
)
def test_a_question_that_cannot_be_judged_names_its_line(
    row: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(orjson.dumps({"prompt": "a", "expected": "b"}) + b"\n" + orjson.dumps(row) + b"\n")
    with pytest.raises(DataError, match=said) as raised:
        read_questions(str(path))
    assert "q.jsonl:2" in raised.value.saw


@pytest.mark.skipif(not TINY.is_dir(), reason="no real small models here")
@pytest.mark.parametrize("name", ["stories260K", "tinystories-instruct-3m-chat"])
def test_a_real_models_batched_answers_are_its_single_ones(name: str) -> None:
    assistant = load_assistant(str(TINY / name), dtype=torch.float32)
    prompts = ["Once upon a time there was", "Lily and Ben went to the park and", "Hi, how are you?"]
    asked = [Question("t", "all", prompt, ("exact",), ("x",)) for prompt in prompts]
    assert ask(assistant, asked, max_new_tokens=12) == [
        ask(assistant, [one], max_new_tokens=12)[0] for one in asked
    ]
