"""F8: random conversations under every template we have, with four tokenizers: graded exactly, or refused.

What comes back is looked at from outside. For each graded turn: before it stand the ids that inference feeds, graded
is one run of tokens, it spells the reply, and it ends with a stop token that occurs in it once. The certificate's own
`verify` must find nothing either. The templates and three of the tokenizers are in ../shared; without it a few of our
own are taken.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import burnish
from burnish import marble
from burnish.chat.certificate import verify
from burnish.chat.encode import Encoder
from burnish.chat.refusal import RowRefused
from burnish.chat.template import CHATML, ChatTemplate
from burnish.experiments.masks import CALL, INLINE, RESULT, TOOL
from burnish.experiments.reliability.outcome import Outcome
from burnish.types import Conversation, Example, Message, Origin, Row

SHARED = Path(burnish.__file__).parents[2].parent / "shared" / "data"
CONTROLS = re.compile(
    r"<\|[\w/ ]+\|>|<｜[^｜]+｜>|<(?:start|end)_of_turn>|\[/?INST\]|\[/?[A-Z_]{4,}\]|<turn\|>|<\|turn>"
    r"|<seed:\w+>|<\|tool_response>|<\|?tool_call\|?>|<channel\|>|<\|channel>"
)
ENDS = (
    "<|eot_id|>", "<|im_end|>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<turn|>", "<end_of_turn>",
)  # fmt: skip
WORDS = (
    "", " ", "\n", "\n\n", ".", "assistant", "<|im_end|>", "</s>", "[INST]", "<think>", "</think>", "None", "None\n",
)  # fmt: skip
OPENING = "<think>"
ALPHABET = "ab Zé\n\t .<>|/\"'{}😀0"


def random_conversations(place: Path, *, seed: int, trials: int = 20_000) -> Outcome:
    """F8: each trial draws a template, a tokenizer and a conversation."""
    outcome = Outcome("F8", "conversations x templates x tokenizers", seed)
    rng = random.Random(seed)
    sources, tokenizers = templates(), backends()
    encoders: dict[tuple[str, str], Encoder] = {}
    reasons: Counter[str] = Counter()
    for _ in range(trials):
        name, kind = rng.choice(sorted(sources)), rng.choice(sorted(tokenizers))
        if (name, kind) not in encoders:
            encoders[name, kind] = _encoder(sources[name], tokenizers[kind])
        conversation = draw_conversation(rng)
        try:
            broken = _broken(encoders[name, kind], conversation)
        except RowRefused as refusal:
            reasons[refusal.reason.split(":")[0]] += 1
            outcome.note("refused")
        except Exception as error:
            outcome.note("graded", f"{name}, {kind}: {type(error).__name__}: {error}, {conversation}")
        else:
            outcome.note("graded", broken and f"{name}, {kind}: {broken}, {conversation}")
    said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    outcome.margin = f"{len(sources)} templates, {len(tokenizers)} tokenizers; refused: {said}"
    return outcome


def templates() -> dict[str, str]:
    """The templates of ../shared by name, or ChatML alone."""
    found = sorted((SHARED / "chat-templates" / "templates").glob("*.jinja"))
    return {path.stem: path.read_text(encoding="utf-8") for path in found} or {"ChatML": CHATML}


def backends() -> dict[str, str]:
    """Tokenizers as JSON: those of ../shared or marble's, and one that would join a header's end and a reply."""
    found = sorted(path.parent for path in (SHARED / "tokenizers").glob("*/tokenizer_config.json"))
    read = {path.name: AutoTokenizer.from_pretrained(path) for path in found or [marble.DIRECTORY]}
    joining = Tokenizer(models.BPE())
    joining.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    joining.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = ["assistant\n\n", "assistant\n \n", "assistant\n.", "model\n\n"] * 9 + ["yes no <think> é 😀"]
    joining.train_from_iterator(texts, trainer)
    return {
        **{name: str(one.backend_tokenizer.to_str()) for name, one in read.items()},
        "joining": joining.to_str(),
    }


def _encoder(source: str, backend: str) -> Encoder:
    eos = next((end for end in ENDS if end in source), "</s>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend), bos_token="<s>", eos_token=eos
    )
    spelled = sorted({"<s>", eos, *CONTROLS.findall(source)})
    tokenizer.backend_tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in spelled]
    )
    return Encoder(ChatTemplate(source, special_tokens={"bos_token": "<s>", "eos_token": eos}), tokenizer)


def draw_conversation(rng: random.Random) -> Conversation:
    """A system message or none, one to three exchanges, with reasoning, calls, weights and odd whitespace."""
    messages: list[Message] = [{"role": "system", "content": _text(rng)}] if rng.random() < 0.5 else []
    tools = None
    for _ in range(rng.randint(1, 3)):
        messages.append({"role": "user", "content": _text(rng)})
        if rng.random() < 1 / 6:
            tools = rng.choice([None, [TOOL]])
            arguments = {"city": _text(rng), "days": rng.randint(0, 9)}
            call = {**CALL, "function": {"name": "get_weather", "arguments": arguments}}
            said = rng.choice(["", None, "Wait."])
            messages.append({"role": "assistant", "content": said, "tool_calls": [call]})
            messages.append({**RESULT, "content": _text(rng)})
        reply: Message = {"role": "assistant", "content": _text(rng)}
        match rng.randrange(8):
            case 0:
                reply["reasoning_content"] = _text(rng)
            case 1:
                reply["content"] = INLINE + str(reply["content"])
            case 2:
                reply["weight"] = rng.choice([0, 0.5, 2])
        messages.append(reply)
    return Conversation(messages, tools)


def _text(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(WORDS)
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(15)))


def _broken(encoder: Encoder, conversation: Conversation) -> str | None:
    """The first rule that the examples of a conversation break."""
    row = Row(0, 0, Origin("F8", 1), conversation)
    examples = encoder.encode(row)
    if found := verify(encoder, row, examples):
        return str(found[0])
    messages = conversation.messages
    asked = [
        at for at, said in enumerate(messages) if said["role"] == "assistant" and said.get("weight", 1) != 0
    ]
    if (turns := [turn for example in examples for turn in example.turns]) != asked:
        return f"graded are {turns}, and to be graded {asked}"
    return next((said for example in examples if (said := _in_example(encoder, conversation, example))), None)


def _in_example(encoder: Encoder, conversation: Conversation, example: Example) -> str | None:
    runs = groupby(range(len(example.weights)), key=lambda at: example.weights[at] != 0.0)
    graded = [list(run) for is_graded, run in runs if is_graded]
    if len(graded) != len(example.turns):
        return f"{len(graded)} graded runs of tokens for {len(example.turns)} turns"
    for turn, run in zip(example.turns, graded, strict=True):
        message = conversation.messages[turn]
        ids = [example.input_ids[at] for at in run]
        if example.input_ids[: run[0]] != encoder.prompt_ids(
            conversation.messages[:turn], conversation.tools
        ):
            return f"message {turn}: what stands before it is not what inference feeds"
        if {example.weights[at] for at in run} != {float(message.get("weight", 1))}:
            return f"message {turn}: its tokens have other weights"
        if ids[-1] not in encoder.stop_ids or ids.count(ids[-1]) != 1:
            return f"message {turn}: it does not end with its one stop token"
        last = (message["content"] or "").split("\n")[-1].strip()
        # "<think>" alone, after a prompt that ends with it: the tag is fed, and what is left to say is nothing.
        is_fed = last == OPENING and encoder.decode(example.input_ids[: run[0]]).rstrip().endswith(OPENING)
        if last.isascii() and last not in encoder.decode(ids) and not is_fed:
            return f"message {turn}: the reply is not in what is graded"
    return None
