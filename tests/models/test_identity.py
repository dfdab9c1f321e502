"""A tuned model is asked in the very template it was trained in, with its date and variables, or not at all."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.chat.child import TemplateBreach
from burnish.chat.template import CHATML
from burnish.errors import DataError
from burnish.models.assistant import load_assistant
from burnish.models.load import load_model, save_model
from burnish.models.tokenizer import ChatTokenizer, load_chat_tokenizer

ModelDirectory = Callable[..., Path]

DATED = (
    "{{ strftime_now('%d %b %Y') }}{% if tools %}{{ tools | tojson }}{% endif %}\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if shout %}!{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ call.function.arguments.items() | list }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chat(model_directory: ModelDirectory, tmp_path: Path) -> ChatTokenizer:
    file = tmp_path / "dated.jinja"
    file.write_text(DATED)
    return load_chat_tokenizer(
        str(model_directory()),
        chat_template=str(file),
        chat_template_kwargs={"shout": True},
        date=datetime.date(2024, 7, 26),
    )


@pytest.fixture
def tuned(chat: ChatTokenizer, model_directory: ModelDirectory, tmp_path: Path) -> Path:
    """What a run leaves behind: a model directory with the tokenizer, the template and `chat.json`."""
    place = tmp_path / "final"
    model = load_model(str(model_directory()))
    model.resize_token_embeddings(len(chat), mean_resizing=False)
    save_model(model, chat.tokenizer, place, stop_ids=chat.stop_ids)
    chat.identity.write(place)
    return place


def test_it_is_asked_as_it_was_trained_on_another_day(tuned: Path, chat: ChatTokenizer) -> None:
    asked = load_assistant(str(tuned)).tokenizer
    assert asked.prompt_ids("Hi") == chat.prompt_ids("Hi")
    text = asked.tokenizer.decode(asked.prompt_ids("Hi"))
    assert text.startswith("26 Jul 2024") and "Hi!" in text
    assert asked.identity == chat.identity
    assert json.loads((tuned / "chat.json").read_text())["date"] == "2024-07-26"


def test_stops_that_were_graded_in_training_end_answers(tuned: Path, chat: ChatTokenizer) -> None:
    chat.take_in([7], {})
    chat.identity.write(tuned)
    assert 7 in load_assistant(str(tuned)).stop_ids


def test_another_template_is_refused_unless_the_user_names_it(tuned: Path, tmp_path: Path) -> None:
    (tuned / "chat_template.jinja").write_text(DATED.replace("Start", "").replace("!", "?"))
    with pytest.raises(DataError, match="was trained with chat template"):
        load_assistant(str(tuned))
    named = tmp_path / "mine.jinja"
    named.write_text(CHATML)
    other = load_assistant(str(tuned), chat_template=str(named)).tokenizer
    assert "!" not in other.tokenizer.decode(other.prompt_ids("Hi"))


@pytest.mark.parametrize("text", ["[", "{}", '{"template_sha256": 1}', '{"date": "soon"}'])
def test_a_damaged_chat_json_is_named(tuned: Path, text: str) -> None:
    (tuned / "chat.json").write_text(text)
    with pytest.raises(DataError, match=r"chat\.json"):
        load_chat_tokenizer(str(tuned))


def sum_of(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def test_tools_are_schemas_or_functions_and_arguments_objects_or_json(chat: ChatTokenizer) -> None:
    schema = {
        "type": "function",
        "function": {
            "name": "sum_of",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer", "description": "The first."},
                    "b": {"type": "integer", "description": "The second."},
                },
                "required": ["a", "b"],
            },
        },
    }
    ids = chat.prompt_ids("Hi", tools=[sum_of])
    assert "Add two numbers" in chat.tokenizer.decode(ids)
    prompts = []
    for arguments in ({"a": 1}, '{"a": 1}'):
        call = {"type": "function", "function": {"name": "sum_of", "arguments": arguments}}
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        prompts.append(chat.prompt_ids(messages, tools=[schema]))
    assert prompts[0] == prompts[1] and "('a', 1)" in chat.tokenizer.decode(prompts[0])
    with pytest.raises(DataError, match="bad tool call"):
        call = {"function": {"name": "sum_of", "arguments": "{"}}
        chat.prompt_ids([{"role": "assistant", "content": "", "tool_calls": [call]}])


def test_a_template_that_is_a_bomb_is_refused_when_it_is_loaded(
    model_directory: ModelDirectory, tmp_path: Path
) -> None:
    file = tmp_path / "bomb.jinja"
    file.write_text("{{ 'a' * 30000000000 }}")
    with pytest.raises(TemplateBreach, match="needed more than"):
        load_chat_tokenizer(str(model_directory()), chat_template=str(file))
