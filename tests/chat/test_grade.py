"""Grading as text: where a completion begins and ends, and why a row is refused."""

from __future__ import annotations

import pytest

from burnish.chat.grade import RowRefused, Stops, Turn, find_stops, grade
from burnish.chat.provenance import OWN, Leaf, Run
from burnish.chat.segments import any_of
from burnish.chat.template import CHATML, ChatTemplate
from burnish.types import Conversation
from tests.chat.families import FAMILIES, THINKING, assistant, family, user

CONTROLS = any_of(
    ["<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "<|endoftext|>", "</s>", "<s>",
     "<|return|>", "<|start|>", "<|call|>", "<|tool|>"]
)  # fmt: skip


def graded(
    source: str, *messages: dict[str, object], eos: str = "<|im_end|>", train_on: str = "all"
) -> list[Turn]:
    template = ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": eos})
    stops = find_stops(template, CONTROLS, eos)
    return grade(
        template, Conversation(list(messages)), stops=stops, train_on="last" if train_on == "last" else "all"
    )


def stops_of(source: str, eos: str) -> frozenset[str]:
    return find_stops(ChatTemplate(source, special_tokens={"eos_token": eos}), CONTROLS, eos).known


def test_the_completion_is_what_comes_after_the_prompt_up_to_the_stop() -> None:
    (turn,) = graded(CHATML, user("Hi"), assistant("Hello."))
    assert turn == Turn(
        1,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "Hello.<|im_end|>",
        "<|im_end|>",
        1.0,
        runs=(Run(0, 6, 1, 0), Run(6, 16, OWN, 0)),
        leaves=(Leaf(0, "content", "Hi"), Leaf(1, "content", "Hello.")),
    )


def test_reasoning_of_an_earlier_turn_is_trained_though_history_drops_it() -> None:
    first, second = graded(
        THINKING,
        user("a"),
        assistant("<think>\nx\n</think>\n\nA"),
        user("b"),
        assistant("<think>\ny\n</think>\n\nB"),
    )
    assert "x" in first.completion and "x" not in second.context


PHI_3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{{ '' }}{% else %}{{ eos_token }}{% endif %}"
)
COMMAND = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + ':' + m['content'] + '<|end|>' }}"
    "{% endfor %}<|start|>{% if add_generation_prompt %}assistant:{% endif %}"
)
HARMONY = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + ':' + m['content'] }}"
    "{{ '<|return|>' if loop.last and m['role'] == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant:' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("source", "eos", "ends"),
    [(PHI_3, "<|endoftext|>", "<|end|>"), (COMMAND, "</s>", "<|end|>"), (HARMONY, "</s>", "<|return|>")],
)
def test_the_template_itself_tells_which_token_ends_a_turn(source: str, eos: str, ends: str) -> None:
    assert stops_of(source, eos) == {eos, ends}
    turns = graded(source, user("u"), assistant("a"), user("v"), assistant("b"), eos=eos)
    assert [turn.completion for turn in turns] == [f"a{ends}", f"b{ends}"]


def test_a_turn_that_nothing_closes_ends_with_the_header_of_whoever_speaks_next() -> None:
    # GLM-4: "<|user|>\nu<|assistant|>\na<|user|>\nv", and generation stops at <|user|> or <|tool|>.
    glm = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
        "{{ m.tool_calls[0].function.name if m.tool_calls }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{{ '' }}{% endif %}"
    )
    assert stops_of(glm, "</s>") == {"</s>", "<|user|>"}
    first, second = graded(glm, user("u"), assistant("a"), user("v"), assistant("b"), eos="</s>")
    assert (first.completion, second.completion) == ("a<|user|>", "b<|user|>")
    called = assistant("", tool_calls=[{"type": "function", "function": {"name": "get", "arguments": {}}}])
    (turn,) = graded(glm, user("u"), called, eos="</s>")
    assert (turn.completion, turn.stop) == ("get<|tool|>", "<|tool|>")


def test_reasoning_in_a_channel_of_its_own_is_one_turn_with_one_stop_token() -> None:
    channels = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}"
        "{% if loop.last and m.thinking %}"
        "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] }}"
        "{{ '<|return|>' if loop.last else '<|end|>' }}"
        "{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    )
    talk = [user("u"), assistant("a", thinking="why"), user("v"), assistant("b", thinking="hm")]
    first, second = graded(channels, *talk, eos="</s>")
    final = "<|start|>assistant<|channel|>final<|message|>"
    assert first.completion == f"<|channel|>analysis<|message|>why<|end|>{final}a<|return|>"
    assert second.completion == f"<|channel|>analysis<|message|>hm<|end|>{final}b<|return|>"
    assert "why" not in second.context and stops_of(channels, "</s>") == {"</s>", "<|return|>"}


def test_a_template_that_refuses_the_probe_ends_turns_with_eos() -> None:
    assert stops_of("{{ raise_exception('no') }}", "</s>") == {"</s>"}


def test_a_tool_call_may_end_with_a_token_of_its_own() -> None:
    stops = Stops(CONTROLS, frozenset({"<|return|>"}))
    assert stops.first("get<|tool|>{}<|call|>", 0) == (21, "<|call|>")
    assert stops.first("yes<|return|><|start|>", 0) == (13, "<|return|>")
    assert stops.first("nothing", 0) is None


def test_a_system_message_told_to_the_last_user_only_is_in_the_context() -> None:
    nemo = (
        "{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
        "{{ bos_token }}{% for m in messages if m['role'] != 'system' %}{% if m['role'] == 'user' %}"
        "{{ '[INST]' + (system + '\n' if loop.last and system else '') + m['content'] + '[/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    system = {"role": "system", "content": "Be terse."}
    first, second = graded(nemo, system, user("u"), assistant("a"), user("v"), assistant("b"), eos="</s>")
    assert (first.context, first.completion) == ("<s>[INST]Be terse.\nu[/INST]", "a</s>")
    assert second.context == "<s>[INST]u[/INST]a</s>[INST]Be terse.\nv[/INST]"


def refusal_of(source: str, *messages: dict[str, object]) -> str:
    with pytest.raises(RowRefused) as refusal:
        graded(source, *messages)
    return refusal.value.reason


def test_a_prompt_that_opens_a_think_block_which_the_reply_has_not_is_refused() -> None:
    deepseek = CHATML.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif")
    assert refusal_of(deepseek, user("u"), assistant("a")) == "reasoning does not fit the prompt"


def test_a_template_that_drops_the_reply_or_what_was_asked_is_refused() -> None:
    no_reply = "{% for m in messages %}{{ m['content'] if m['role'] == 'user' }}<|im_end|>{% endfor %}"
    no_user = no_reply.replace("'user'", "'assistant'")
    assert refusal_of(no_reply, user("u"), assistant("Yes.")) == "reply not found in the render"
    assert refusal_of(no_user, user("Hi!"), assistant("Yes.")) == "message lost in the render"


def test_messages_out_of_order_are_refused() -> None:
    backwards = "{% for m in messages | reverse %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    asked = [user("one"), assistant("two", train=False), user("three"), assistant("four")]
    assert refusal_of(backwards, *asked) == "message lost in the render"


def test_the_reason_of_a_template_that_raises_is_its_own_words_and_short() -> None:
    assert refusal_of("{{ raise_exception('no ' * 999) }}", user("u"), assistant("a")).startswith(
        "template refused: no no"
    )
    assert len(refusal_of("{{ raise_exception('no ' * 999) }}", user("u"), assistant("a"))) < 150


def test_a_reply_written_as_json_or_with_its_reasoning_wrapped_anew_is_found() -> None:
    as_json = "{% for m in messages %}{{ m['content'] | tojson }}<|im_end|>{% endfor %}"
    (turn,) = graded(as_json, user("u"), assistant('say "é"'))
    assert turn.completion == '"say \\"é\\""<|im_end|>'
    rewrapped = CHATML.replace("m['content']", "m['content'].replace('<think>', '<think>\n')").replace(
        "message['content']", "message['content'].replace('<think>', '<think>\n')"
    )
    (turn,) = graded(rewrapped, user("u"), assistant("<think>why</think>so"))
    assert turn.completion == "<think>\nwhy</think>so<|im_end|>"


def test_train_on_last_takes_the_last_reply_only() -> None:
    messages = [user("u"), assistant("a"), user("v"), assistant("b")]
    assert [turn.index for turn in graded(CHATML, *messages, train_on="last")] == [3]
    assert [turn.index for turn in graded(CHATML, *messages)] == [1, 3]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_tells_its_stop_token(name: str) -> None:
    template, tokenizer = family(name)
    eos = FAMILIES[name][2]
    controls = any_of(tokenizer.get_added_vocab())
    expected = {"Gemma": {"<eos>", "<end_of_turn>"}}.get(name, {eos})
    assert find_stops(template, controls, eos).known == expected
