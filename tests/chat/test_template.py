"""ChatTemplate against transformers' own `apply_chat_template`, and its refusals."""

from __future__ import annotations

import csv
import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from burnish.chat.template import CHATML, ChatTemplate, TemplateRefusal
from burnish.errors import DataError

TEMPLATES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "chat-templates"
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
HI = {"role": "user", "content": "Hi"}

needs_templates = pytest.mark.skipif(not TEMPLATES.exists(), reason="../shared/data/chat-templates is absent")


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Malmö <b>", "days": [1, 2.5, None]}},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'Weather\'s "for" a city',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], Any, bool]] = {
    "prompt": ([user("Hi")], None, True),
    "two turns": ([user(" Hi\n"), assistant("\n\nYes & <no> "), user("é 😀"), assistant("ok")], None, False),
    "system": ([{"role": "system", "content": "Be terse."}, user("Hi"), assistant("Yes.")], None, False),
    "late system": ([user("Hi"), assistant("a"), {"role": "system", "content": "S"}, user("b")], None, True),
    "reasoning": ([user("q"), assistant("a", reasoning_content="why"), user("r")], None, True),
    "thinking": ([user("q"), assistant("<think>\nx\n</think>\n\na", thinking="why")], None, False),
    "tool call": (
        [user("Oslo?"), assistant(None, tool_calls=[CALL]), {"role": "tool", "name": "get_weather",
         "tool_call_id": "abcdef123", "content": "{\"c\": 4}"}, assistant("4")],
        TOOLS, False,
    ),
    "nothing said": ([user("Hi"), assistant("")], None, False),
    "unknown role": ([{"role": "human", "content": "Hi"}], None, True),
    "content parts": ([user([{"type": "text", "text": "Hi"}]), assistant("ok")], None, False),
}  # fmt: skip


def sources() -> Iterator[Any]:
    for path in sorted((TEMPLATES / "templates").glob("*.jinja")):
        yield pytest.param(path, id=path.stem)


def bare_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **NAMES)


@needs_templates
@pytest.mark.parametrize("path", list(sources()))
def test_a_real_template_renders_to_the_byte_as_transformers_renders_it(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tokenizer = bare_tokenizer()
    template = ChatTemplate(source, special_tokens=NAMES)
    for name, (messages, tools, prompt) in CONVERSATIONS.items():
        try:
            theirs: str | None = tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=source, add_generation_prompt=prompt, tokenize=False
            )
        except Exception:
            theirs = None
        try:
            ours: str | None = template.render(messages, tools, add_generation_prompt=prompt)
        except TemplateRefusal:
            ours = None
        assert without_time(ours) == without_time(theirs), name


def without_time(text: str | None) -> str | None:
    """Templates that print hours and minutes see midnight here, and the wall clock there."""
    return text and re.sub(r"\d\d:\d\d(:\d\d)?", "", text)


@needs_templates
def test_the_recorded_renders_of_22_families_come_out_the_same() -> None:
    recorded = json.loads((TEMPLATES / "expected_renders.json").read_text(encoding="utf-8"))
    rows = {row["file"]: row for row in csv.DictReader((TEMPLATES / "core_families.csv").open())}
    compared = 0
    for family in recorded["families"]:
        path = TEMPLATES / family["file"]
        if not path.exists():
            continue
        names = {
            "bos_token": rows[family["file"]]["bos_token"],
            "eos_token": rows[family["file"]]["eos_token"],
        }
        template = ChatTemplate(path.read_text(encoding="utf-8"), special_tokens=names)
        for case, expected in family["renders"].items():
            given = recorded["cases"][case]
            if "error" in expected:
                with pytest.raises(TemplateRefusal):
                    template.render(
                        given["messages"],
                        given["tools"],
                        add_generation_prompt=given["add_generation_prompt"],
                    )
                continue
            ours = template.render(
                given["messages"], given["tools"], add_generation_prompt=given["add_generation_prompt"]
            )
            assert without_date(ours) == without_date(expected["text"]), (family["family"], case)
            compared += 1
    assert compared >= 60


def without_date(text: str) -> str:
    return re.sub(r"\d\d? \w{3,9} \d{4}", "DATE", text)


def test_the_same_date_is_printed_for_a_whole_run() -> None:
    source = "{{ strftime_now('%d %B %Y') }}"
    template = ChatTemplate(source, date=datetime.date(2024, 7, 26))
    assert template.render([HI]) == "26 July 2024"
    assert template.sha256 != ChatTemplate(source, date=datetime.date(2024, 7, 27)).sha256


def test_the_hash_of_a_template_without_a_date_is_the_same_every_day() -> None:
    one, other = (ChatTemplate(CHATML, date=datetime.date(2024, 7, day)) for day in (1, 2))
    assert one.sha256 == other.sha256
    assert one.sha256 != ChatTemplate(CHATML, chat_template_kwargs={"enable_thinking": False}).sha256


def test_template_variables_reach_the_template_and_win_over_special_tokens() -> None:
    template = ChatTemplate(
        "{{ eos_token }}{{ enable_thinking }}",
        special_tokens={"eos_token": "</s>"},
        chat_template_kwargs={"enable_thinking": False, "eos_token": "<|end|>"},
    )
    assert template.render([HI]) == "<|end|>False"


def test_burnish_own_keys_never_reach_a_template() -> None:
    template = ChatTemplate("{{ messages | tojson }}")
    assert template.render([{**HI, "weight": 0, "train": False}]) == '[{"role": "user", "content": "Hi"}]'


def test_what_a_template_says_when_it_raises_is_kept() -> None:
    template = ChatTemplate("{{ raise_exception('System role not supported') }}")
    with pytest.raises(TemplateRefusal) as refusal:
        template.render([HI])
    assert refusal.value.message == "System role not supported"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[7]['content'] + 'a' }}",
        "{{ 1 / 0 }}",
        "{{ none + 'a' }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% set ns = namespace() %}{% set ns._hidden = 1 %}",
        "{{ range(999999999) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ undefined_function() }}",
    ],
)
def test_whatever_goes_wrong_in_a_template_is_a_refusal_of_the_row(source: str) -> None:
    with pytest.raises(TemplateRefusal):
        ChatTemplate(source).render([HI])


def test_a_template_that_is_not_jinja_is_an_error_that_names_the_line() -> None:
    with pytest.raises(DataError, match="line 2"):
        ChatTemplate("{{ 'fine' }}\n{% for %}").render([])


def test_generation_marks_are_accepted_and_change_nothing() -> None:
    marked = "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    assert ChatTemplate(marked).render([HI]) == "Hi"


def test_json_is_written_as_models_read_it() -> None:
    assert (
        ChatTemplate("{{ messages[0] | tojson }}").render([user("<é>")])
        == '{"role": "user", "content": "<é>"}'
    )


def test_chatml_is_what_it_is_known_to_be() -> None:
    text = ChatTemplate(CHATML).render([HI, assistant("Yes."), HI], add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_that_asks_for_documents_is_told_that_there_are_none() -> None:
    assert ChatTemplate("{{ documents is none }}{{ tools is none }}").render([HI]) == "TrueTrue"
