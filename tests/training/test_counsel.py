"""What a template does to the data is said in words, with numbers, and every reason comes with what mends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import burnish
from burnish.chat.template import CHATML
from burnish.recipe.load import load_recipe
from burnish.training.certificate import certify
from burnish.training.counsel import ADVICE, advice_on, counsel
from tests.conftest import conversation, write_jsonl

FORGETFUL = CHATML.replace(
    "message['content']", "(message['content'] if loop.last else message['content'].split('</think>')[-1])"
)


def turns(count: int, thought: str) -> dict[str, Any]:
    messages: list[dict[str, str]] = []
    for k in range(count):
        asked, answered = conversation(k)["messages"]
        messages += [asked, {"role": "assistant", "content": thought + answered["content"]}]
    return {"messages": messages}


def test_a_template_that_drops_earlier_reasoning_is_said_to(
    model_directory: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "think.jsonl", [turns(3, "<think>why</think>"), turns(1, ""), turns(2, "")])
    template = tmp_path / "forgetful.jinja"
    template.write_text(FORGETFUL)
    recipe = {"model": str(model_directory()), "datasets": str(data), "chat_template": str(template)}
    certified = certify(load_recipe(None, recipe).recipe)
    split = certified.certificate.split
    assert (split["conversations"], split["views"], split["with_reasoning"]) == (1, 3, 1)
    views = certified.data.train[0]
    assert split["tokens"] == sum(map(len, views))
    shared = [
        next(k for k in range(len(view)) if k >= len(before) or before.input_ids[k] != view.input_ids[k])
        for before, view in pairwise(views)
    ]
    assert split["shared_tokens"] == sum(shared) > 0
    (finding,) = [f for f in counsel(certified.certificate) if f.key == "chat_template"]
    assert finding.saw == "this template drops earlier reasoning"
    assert finding.advice.startswith("1 conversations become 3 views")
    assert f"{sum(shared) / split['tokens']:.0%} of their tokens" in finding.advice


def test_every_reason_that_the_chat_floor_gives_has_words_of_its_own() -> None:
    folder = Path(burnish.__file__).parent / "chat"
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    reasons = re.findall(r"RowRefused\(\s*f?\"([^\"{]+)", text)
    assert len(reasons) > 8
    assert [reason for reason in reasons if not any(reason.startswith(start) for start in ADVICE)] == []


def test_the_advice_is_that_of_the_longest_reason_that_fits() -> None:
    assert "reasoning=off" in advice_on("reasoning not found in the render")
    assert advice_on("template refused: took longer than 5 s") != advice_on(
        "template refused: no system role"
    )
    assert "ledger" in advice_on("broken JSON")
