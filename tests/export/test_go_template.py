"""A Go template is written where it renders what the Jinja template renders, and refused with the reason elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from burnish.chat.template import CHATML, ChatTemplate
from burnish.export.go_template import NotDerivable, Render, Turns, derive
from burnish.types import Message

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN25 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
FOLDED = (  # Llama 2: the system prompt goes into the first user turn
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}<<SYS>>{{ messages[0].content }}<</SYS>>{% endif %}"
    "{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
NUMBERED = "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}> "
SHOUTED = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}> "
TWICE = "{% for m in messages %}{{ m.content }} {{ m.content }}\n{% endfor %}> "
BRACED = (
    "{% for m in messages %}{{ '{{' }}{{ m.role }}}} {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}> {% endif %}"
)


def render_of(source: str) -> Render:
    template = ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": "</s>"})

    def render(messages: Sequence[Message], prompt: bool) -> str:
        return template.render(messages, add_generation_prompt=prompt)

    return render


def run_go(text: str, messages: Sequence[Message]) -> str:
    """What Go makes of the few actions that these templates hold, read from their text alone."""
    system = next((m["content"] for m in messages if m["role"] == "system"), "")
    head, _, rest = text.partition("{{ range .Messages }}")
    body, _, tail = rest.rpartition("{{ end }}{{ end }}")
    if head.startswith("{{ if .System }}"):
        told, _, untold = head.removeprefix("{{ if .System }}").partition("{{ else }}")
        head = told.replace("{{ .System }}", system) if system else untold.removesuffix("{{ end }}")
    user, _, assistant = body.removeprefix('{{ if eq .Role "user" }}').partition(
        '{{ else if eq .Role "assistant" }}'
    )
    turns = [
        (user if m["role"] == "user" else assistant).replace("{{ .Content }}", m["content"])
        for m in messages
        if m["role"] != "system"
    ]
    return re.sub(r'\{\{ "\{\{" \}\}', "{{", head + "".join(turns) + tail)


TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
]


@pytest.mark.parametrize("source", [CHATML, LLAMA3, QWEN25, BRACED])
def test_go_writes_what_jinja_writes(source: str) -> None:
    render = render_of(source)
    text = derive(render).go()
    for messages in (TALK, TALK[1:], TALK[1:2]):
        assert run_go(text, messages) == render(messages, True)


def test_a_template_that_refuses_a_system_prompt_has_none_in_go() -> None:
    turns = derive(render_of(GEMMA))
    assert turns.system is None
    assert ".System" not in turns.go()
    assert run_go(turns.go(), TALK[1:]) == render_of(GEMMA)(TALK[1:], True)


def test_bos_is_left_to_the_server_where_it_stands_first() -> None:
    turns = derive(render_of(LLAMA3)).without("<s>")
    assert "<s>" not in turns.go()
    assert "<s>" + turns.render(TALK) == render_of(LLAMA3)(TALK, True)


@pytest.mark.parametrize("source", [FOLDED, NUMBERED, SHOUTED, TWICE, "{{ messages[7].content }}"])
def test_a_template_that_does_more_is_refused(source: str) -> None:
    with pytest.raises(NotDerivable):
        derive(render_of(source))


def test_a_string_that_would_end_the_template_is_refused() -> None:
    turns = Turns("", None, ('"""', ""), ("", ""), "")
    with pytest.raises(NotDerivable, match="ends a TEMPLATE"):
        turns.go()
