"""What is fed to training, checked against what inference would feed and what the row says.

The check shares with grading only what inference has too: the prompt's ids. From there it looks at ids and weights
alone: which are graded, whether they spell the reply, and whether they end where generation ends. A mask that was
lost, shifted or cut on its way here does not pass, whatever made it.

    ids      <|im_start|> user \\n Hi <|im_end|> \\n <|im_start|> assistant \\n | Hello . <|im_end|>
             inference's prompt for message 1, no weight                      | all of its weight, one stop token, last
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from burnish.chat.conservation import find, must_say
from burnish.chat.encode import Encoder
from burnish.chat.grade import trained_turns
from burnish.chat.reasoning import opened_by
from burnish.types import Completion, Conversation, Document, Example, Message, Row

LENGTHS = "ids and weights differ in length"
FIRST_TOKEN = "first token graded"
TWO_BOS = "two BOS"
CONTEXT = "context is not what inference feeds"
PROMPT_GRADED = "text before the reply is graded"
REPLY_NOT_GRADED = "part of the reply is not graded"
WRONG_WEIGHT = "weight is not the message's"
NO_STOP = "turn without its stop token"
STOP_NOT_GRADED = "stop token is not graded"
GRADED_AFTER = "graded after the stop token"
REPLY_MISSING = "reply text is missing"
TURN_MISSING = "trained turn without an example"
TURN_UNASKED = "graded turn that is not to be trained"

CODES = (
    LENGTHS,
    FIRST_TOKEN,
    TWO_BOS,
    CONTEXT,
    PROMPT_GRADED,
    REPLY_NOT_GRADED,
    WRONG_WEIGHT,
    NO_STOP,
    STOP_NOT_GRADED,
    GRADED_AFTER,
    REPLY_MISSING,
    TURN_MISSING,
    TURN_UNASKED,
)
"""Every rule that `verify` looks at."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of grading that an example breaks: the rule's code, the row, the message, what was seen."""

    code: str
    row: int
    message: int | None
    detail: str


def verify(encoder: Encoder, row: Row, examples: Sequence[Example]) -> list[Violation]:
    """The rules that the examples of a row break; empty where all hold."""
    found: list[Violation] = []
    wanted: dict[int, float] = {}
    if isinstance(row.content, Conversation):
        wanted = dict(trained_turns(row.content.messages, train_on=encoder.train_on))
        found += _same_turns(row, wanted, examples)
    for example in examples:
        broken = list(_shape(encoder, example))
        if not broken:
            match row.content:
                case Conversation():
                    broken = list(_turns(encoder, row.content, example, wanted))
                case Completion() | Document():
                    broken = list(_text(encoder, row.content, example))
        found += [Violation(code, row.index, message, detail) for code, message, detail in broken]
    return found


Broken = tuple[str, int | None, str]


def _shape(encoder: Encoder, example: Example) -> Iterator[Broken]:
    """What holds of any sequence at all."""
    if len(example.input_ids) != len(example.weights):
        yield LENGTHS, None, f"{len(example.input_ids)} ids, {len(example.weights)} weights"
    elif example.weights[:1] != [0.0]:
        yield FIRST_TOKEN, None, "nothing comes before it that could predict it"
    elif encoder.bos_id is not None and example.input_ids[:2] == [encoder.bos_id] * 2:
        yield TWO_BOS, None, f"begins with {example.input_ids[:3]}"


def _same_turns(row: Row, wanted: Mapping[int, float], examples: Sequence[Example]) -> Iterator[Violation]:
    graded = {turn for example in examples for turn in example.turns}
    for turn in sorted(wanted.keys() - graded):
        yield Violation(TURN_MISSING, row.index, turn, f"graded are {sorted(graded)}")
    for turn in sorted(graded - wanted.keys()):
        yield Violation(TURN_UNASKED, row.index, turn, f"to be trained are {sorted(wanted)}")


def _turns(
    encoder: Encoder, conversation: Conversation, example: Example, wanted: Mapping[int, float]
) -> Iterator[Broken]:
    """Each turn of a sequence behind the prompt that inference feeds for it, and nothing graded elsewhere."""
    asked = encoder.as_rendered(conversation)
    ids, weights, stops = example.input_ids, example.weights, encoder.stop_ids
    cursor = 0
    for turn in example.turns:
        prompt = encoder.prompt_ids(
            conversation.messages[:turn],
            conversation.tools,
            documents=conversation.documents,
            variables=conversation.variables,
        )
        begin = len(prompt)
        if ids[:begin] != prompt:
            yield CONTEXT, turn, _difference(encoder, ids, prompt)
            return
        if any(weights[cursor:begin]):
            yield PROMPT_GRADED, turn, _quote(encoder, ids, weights, cursor, begin)
        ends = [ids.index(stop, begin) for stop in stops.intersection(ids[begin:])]
        cursor = min(ends, default=len(ids) - 1) + 1
        if not ends:
            if not example.cut:
                yield NO_STOP, turn, f"ends {encoder.decode(ids[max(begin, cursor - 8) : cursor])!r}"
        else:
            yield from _reply(encoder, asked, turn, prompt, ids[begin:cursor])
        yield from _weights(asked, turn, weights[begin:cursor], wanted.get(turn, 0.0))
    if any(weights[cursor:]):
        yield GRADED_AFTER, example.turns[-1], _quote(encoder, ids, weights, cursor, len(ids))


def _weights(asked: Conversation, turn: int, weights: list[float], wanted: float) -> Iterator[Broken]:
    """All of a reply has the message's weight; parts of the content may have none."""
    message = asked.messages[turn]
    if weights and weights[-1] == 0.0:
        yield STOP_NOT_GRADED, turn, "the last token of the turn has no weight"
    elif 0.0 in weights and not message.get("untrained"):
        yield REPLY_NOT_GRADED, turn, f"{weights.count(0.0)} of {len(weights)} tokens have no weight"
    elif set(weights) - {0.0, wanted}:
        yield WRONG_WEIGHT, turn, f"{sorted(set(weights))} where the message has {wanted}"


def _reply(
    encoder: Encoder, asked: Conversation, turn: int, prompt: list[int], ids: list[int]
) -> Iterator[Broken]:
    """The graded ids spell the reply: its reasoning, its content, its calls."""
    message, spelled = asked.messages[turn], encoder.decode(ids)
    missing = _unspelled(encoder, message, spelled)
    if missing:
        # The tag of a reply that thinks may be the prompt's: "<think>\n" is fed, "why</think>so" is graded.
        opened = opened_by(encoder.decode(prompt[-16:]))
        missing = _unspelled(encoder, message, opened + spelled) if opened else missing
    if missing:
        yield REPLY_MISSING, turn, f"{missing[0]} {missing[1][:60]!r} is not in {spelled[:80]!r}"


def _unspelled(encoder: Encoder, message: Message, spelled: str) -> tuple[str, str] | None:
    """The first string of a message, with its kind, that a text does not hold."""
    # In order within each kind: Gemma-4 writes a call before what was said with it.
    cursors = dict.fromkeys(("reasoning", "reply", "tool call"), 0)
    for kind, text in must_say(message):
        end = find(spelled, text, cursors[kind])
        # A tokenizer that normalises (NFC, lower case) spells the text as it sees it.
        end = find(spelled, encoder.respelled(text), cursors[kind]) if end is None else end
        if end is None:
            return kind, text
        cursors[kind] = end
    return None


def _text(encoder: Encoder, content: Completion | Document, example: Example) -> Iterator[Broken]:
    """A completion after its prompt, or a whole document: graded to its end, which is the end of text."""
    prompt = encoder.text_prompt_ids(content)
    begin = max(1, len(prompt))
    ids, weights = example.input_ids, example.weights
    if ids[: len(prompt)] != prompt:
        yield CONTEXT, None, _difference(encoder, ids, prompt)
    elif any(weights[:begin]):
        yield PROMPT_GRADED, None, _quote(encoder, ids, weights, 0, begin)
    elif ids[-1] != encoder.eos_id:
        yield NO_STOP, None, f"ends {encoder.decode(ids[-8:])!r}"
    elif weights[-1] == 0.0:
        yield STOP_NOT_GRADED, None, "the end of text has no weight"
    elif 0.0 in weights[begin:]:
        yield REPLY_NOT_GRADED, None, f"{weights[begin:].count(0.0)} tokens have no weight"


def _difference(encoder: Encoder, ids: Sequence[int], prompt: Sequence[int]) -> str:
    """Where a sequence leaves the prompt that inference feeds."""
    at = len(commonprefix([list(ids), list(prompt)]))
    return (
        f"token {at}: {encoder.decode(list(ids[at : at + 6]))!r} where inference feeds "
        f"{encoder.decode(list(prompt[at : at + 6]))!r}"
    )


def _quote(encoder: Encoder, ids: list[int], weights: list[float], start: int, end: int) -> str:
    graded = [ids[at] for at in range(start, end) if weights[at]]
    return f"{len(graded)} tokens: {encoder.decode(graded)[:60]!r}"
