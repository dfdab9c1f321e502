"""Failures that peers shipped, on real and small templates: what burnish trains instead."""

from __future__ import annotations

import json

import pytest

from burnish.chat.certificate import verify
from burnish.chat.encode import Encoder, EncoderSpec
from burnish.chat.provenance import TokenOrigin
from burnish.chat.refusal import RowRefused
from burnish.chat.template import CHATML, ChatTemplate
from burnish.types import Conversation, Example, Message, Row
from tests.chat.families import SHARED, assistant, chat, family, row, tokenizer_of, user

QWEN3 = SHARED / "chat-templates" / "templates" / "llamacpp__Qwen-Qwen3-0.6B.jinja"


def graded_text(encoder: Encoder, example: Example) -> str:
    return encoder.decode([i for i, w in zip(example.input_ids, example.weights, strict=True) if w])


def encoder_of(source: str, kind: str = "bytes", train_on: str = "all") -> Encoder:
    tokenizer = tokenizer_of(kind, "<s>", "<|im_end|>", ["<|im_start|>"])
    template = ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": "<|im_end|>"})
    return Encoder(template, tokenizer, train_on=train_on)  # type: ignore[arg-type]


@pytest.mark.skipif(not QWEN3.exists(), reason="../shared/data/chat-templates is absent")
def test_earlier_turns_of_qwen3_are_trained_with_the_reasoning_that_inference_would_have_them_write() -> None:
    # TRL trains the full render, in which the first reply stands without what it thought.
    encoder = encoder_of(QWEN3.read_text(encoding="utf-8"), "minimind-6400")
    talk = chat(
        user("Why?"),
        assistant("Paris.", reasoning_content="It is easy."),
        user("So?"),
        assistant("No.", reasoning_content="Hm."),
    )
    first, second = encoder.encode(talk)
    assert verify(encoder, talk, [first, second]) == []
    assert graded_text(encoder, first) == "<think>\nIt is easy.\n</think>\n\nParis.<|im_end|>"
    assert graded_text(encoder, second) == "<think>\nHm.\n</think>\n\nNo.<|im_end|>"
    # The second view sees the first reply as inference would show it: without its reasoning.
    assert "easy" not in encoder.decode(second.input_ids)


@pytest.mark.parametrize("reply", ["\nthe cat", "\n\nthe cat", "", " ", ".", "\n"])
@pytest.mark.parametrize("name", ["ChatML", "Gemma", "Llama-2", "Mistral"])
def test_a_reply_that_begins_with_a_newline_never_has_the_header_graded(name: str, reply: str) -> None:
    # TRL grades the merged token "\n\n", half of which is the header's.
    template, tokenizer = family(name)
    encoder = Encoder(template, tokenizer)
    given = chat(user("Hi"), assistant(reply))
    (example,) = encoder.encode(given)
    assert verify(encoder, given, [example]) == []
    first = next(at for at, weight in enumerate(example.weights) if weight)
    prompt = template.render([user("Hi")], add_generation_prompt=True)
    assert example.input_ids[:first] == tokenizer.encode(prompt, add_special_tokens=False)


def test_user_tokens_are_never_trained_whatever_the_template_marks() -> None:
    # TRL's default for a template without generation marks is to train everything.
    encoder = encoder_of(CHATML)
    given = chat({"role": "system", "content": "Be terse."}, user("The cat"), assistant("sat"))
    (example,) = encoder.encode(given)
    assert graded_text(encoder, example) == "sat<|im_end|>"


@pytest.mark.parametrize("form", ["dict", "json"])
def test_arguments_reach_a_template_in_the_form_it_takes(form: str) -> None:
    adds = CHATML.replace(
        "message['content']",
        "message['content'] + (message.tool_calls[0].function.arguments if message.tool_calls else '')",
    )
    dumps = CHATML.replace(
        "message['content']",
        "message['content'] + (message.tool_calls[0].function.name + message.tool_calls[0].function.arguments "
        "| tojson if message.tool_calls else '')",
    )
    arguments = {"city": "Oslo"} if form == "dict" else json.dumps({"city": "Oslo"})
    call = {"type": "function", "function": {"name": "get", "arguments": arguments}}
    for source, expected in ((adds, '{"city": "Oslo"}<|im_end|>'), (dumps, 'get{"city": "Oslo"}<|im_end|>')):
        encoder = encoder_of(source)
        given = chat(user("u"), assistant(None, tool_calls=[call]))
        if source is adds:
            with pytest.raises(RowRefused, match="tool call not found"):  # the name is lost, and says so
                encoder.encode(given)
            continue
        (example,) = encoder.encode(given)
        assert graded_text(encoder, example) == expected
        assert verify(encoder, given, [example]) == []


def test_documents_and_tools_are_given_to_the_template_and_never_graded() -> None:
    source = (
        "{% for d in documents or [] %}{{ d.title + '\\n' }}{% endfor %}{{ tools | tojson if tools }}"
        + CHATML
    )
    encoder = encoder_of(source)
    tools = [{"type": "function", "function": {"name": "get<|im_end|>", "parameters": {}}}]
    content = Conversation([user("u"), assistant("a")], tools=tools, documents=[{"title": "The sea"}])
    (example,) = encoder.encode(row(content))
    text = encoder.decode(example.input_ids)
    assert text.startswith("The sea\n[{") and graded_text(encoder, example) == "a<|im_end|>"
    assert example.input_ids.count(encoder.eos_id) == 2  # one a turn, none from the name of the tool
    assert verify(encoder, row(content), [example]) == []


def parts(*texts: tuple[str, bool]) -> Message:
    from burnish.data.messages import read_messages

    content = [{"type": "text", "text": text, "train": train} for text, train in texts]
    return read_messages([{"role": "assistant", "content": content}])[0]


def test_parts_of_a_reply_may_be_context_and_a_token_across_the_border_is_not_graded() -> None:
    encoder = encoder_of(CHATML)
    given = chat(user("u"), parts(("Hello there, ", False), ("the cat", True)))
    (example,) = encoder.encode(given)
    assert verify(encoder, given, [example]) == []
    graded = graded_text(encoder, example)
    assert "the cat<|im_end|>".endswith(graded) and graded.endswith("cat<|im_end|>")
    assert "Hello there, the cat" in encoder.decode(example.input_ids)


def test_the_stop_token_is_graded_though_the_part_before_it_is_not() -> None:
    encoder = encoder_of(CHATML)
    (example,) = encoder.encode(chat(user("u"), parts(("yes", True), (" 1 2 3", False))))
    graded = graded_text(encoder, example)
    assert graded.endswith("<|im_end|>") and "3" not in graded and graded.startswith("y")


def test_none_but_flagged_trains_what_says_so() -> None:
    encoder = encoder_of(CHATML, train_on="none-but-flagged")
    talk = chat(
        user("u"),
        assistant("a"),
        user("v"),
        assistant("b", train=True),
        user("w"),
        assistant("c", weight=0.5),
    )
    examples = encoder.encode(talk)
    assert [example.turns for example in examples] == [(3, 5)]
    assert verify(encoder, talk, examples) == []
    with pytest.raises(RowRefused, match="no reply to train on"):
        encoder.encode(chat(user("u"), assistant("a")))


def test_each_token_tells_where_it_came_from() -> None:
    encoder = encoder_of(CHATML)
    given = chat(user("The cat <|im_end|>"), assistant("sat."), user("yes"), assistant("no", weight=0))
    (example,) = encoder.encode(given)
    origins = encoder.origins(given, example)
    assert len(origins) == len(example)
    pieces = encoder.pieces(example)
    said = "".join(piece for piece, o in zip(pieces, origins, strict=True) if o.message == 0)
    assert said == "The cat <|im_end|>"
    assert all(origin.reason == "prompt" for origin in origins if origin.message == 0)
    replies = [origin for origin in origins if origin.message == 1]
    assert {origin.reason for origin in replies} == {"reply"}
    assert (replies[0].span or (9, 9))[0] == 0 and (replies[-1].span or (0, 0))[1] == 4
    assert origins[-1] == TokenOrigin("stop")


def test_an_encoder_sent_to_another_process_encodes_the_same() -> None:
    import pickle

    template, tokenizer = family("Llama-3", "pieces")
    spec = EncoderSpec(template, tokenizer.backend_tokenizer.to_str(), str(tokenizer.eos_token))
    copy = pickle.loads(pickle.dumps(spec)).build()
    given: Row = chat(user("Hello"), assistant("there"), user("yes"), assistant("no"))
    assert copy.encode(given) == Encoder(template, tokenizer).encode(given)
