"""Which characters of a rendered conversation teach, in which context.

    context     render(messages[:i], add_generation_prompt=True)     what inference feeds for turn i
    full        render(messages[:i + 1]), traced                     the same, with the reply
    completion  full from the seam on, ended right after the stop token of the turn

    context     "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    completion  "Hello.<|im_end|>"                                   the newline after it is no one's

A row whose render does not have this form is refused with a reason, never guessed at. The functions know
a template only by what it renders.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Literal

from burnish.chat.conservation import KEPT, Kept, check_history, check_reply
from burnish.chat.provenance import OWN, Leaf, Rendered, Run
from burnish.chat.reasoning import (
    Reasoning,
    after_opening,
    closed_by,
    emptied,
    has_reasoning,
    inline_block,
    is_block,
    is_closed,
    opened_by,
    refuse_disagreement,
    with_opening,
)
from burnish.chat.refusal import RowRefused
from burnish.chat.scene import Scene
from burnish.chat.seam import Seam, find_seam
from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.types import Conversation, Message

__all__ = ["RowRefused", "Stops", "TrainOn", "Turn", "find_stops", "grade", "trained_turns"]

TrainOn = Literal["all", "last", "none-but-flagged"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One trained assistant message: what inference feeds before it, and the text it must then produce.

    `completion` ends with `stop`, the one control token that ends the turn. `runs` say where each of its characters
    came from; `untrained` are parts of it, as (start, end), that are context all the same. `exact` is False where the
    render of the reply has the prompt with other whitespace or without its reasoning block.
    """

    index: int
    context: str
    completion: str
    stop: str
    weight: float
    runs: tuple[Run, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    untrained: tuple[tuple[int, int], ...] = ()
    kept: Kept = KEPT
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Stops:
    """The control tokens of a tokenizer as a pattern, and those of them known to end a turn."""

    controls: re.Pattern[str]
    known: frozenset[str]

    def first(self, text: str, start: int) -> tuple[int, str] | None:
        """Where the turn ends in `text`, at or after `start`: the stop token's end, and the stop token.

        A tool call may end with a token of its own (`<|call|>`, `<|eom_id|>`), which the probe has not
        seen: the last control token of the turn is then its end.
        """
        # Cohere: "Hi.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>" goes on to the second, which is known;
        # gpt-oss: "...{}<|call|>" holds no known one, and ends with its last.
        last: re.Match[str] | None = None
        for last in self.controls.finditer(text, start):
            if last[0] in self.known:
                break
        return (last.end(), last[0]) if last else None


def find_stops(template: ChatTemplate, controls: re.Pattern[str], eos_token: str) -> Stops:
    """Ask the template which control token ends a turn, by rendering a reply with and without a next turn.

        ... REPLY <|end|> \n <|endoftext|>          the last turn of a Phi-3 conversation
        ... REPLY <|end|> \n <|user|> \n Next...    the same turn, earlier in one

    What both share after the reply ends the turn. Where they share nothing (gpt-oss ends its last turn with
    `<|return|>`, earlier ones with `<|end|>`), the last turn's own end counts: it is what inference meets.
    """
    question, reply = {"role": "user", "content": "Question"}, {"role": "assistant", "content": "R3PLY"}
    known = {eos_token}
    try:
        alone = template.render([question, reply]).partition("R3PLY")[2]
        followed = template.render([question, reply, question]).partition("R3PLY")[2]
        prompt = template.render([question], add_generation_prompt=True)
        asked = template.render([question])
    except TemplateRefusal:
        return Stops(controls, frozenset(known))
    # Command-A closes a turn and opens the next header at once: what opens a header ends nothing.
    opening = set(Counter(controls.findall(prompt)) - Counter(controls.findall(asked)))
    opening.update(controls.findall(asked.partition("Question")[0]))
    shared = controls.findall(commonprefix([alone, followed]))
    own = controls.findall(alone)
    closing = [token for token in shared[::-1] + own if token not in opening]
    # From the last shared one back: `<|END_RESPONSE|>` stands before the token that inference stops at.
    if eos_token not in shared:
        known.update(closing[:1])
    # GLM-4 writes nothing after a reply: the header of whoever speaks next ends it, and is what a model stops at.
    if not own and (header := controls.match(followed)):
        known.add(header[0])
    return Stops(controls, frozenset(known))


def grade(
    template: ChatTemplate,
    conversation: Conversation,
    *,
    stops: Stops,
    train_on: TrainOn = "all",
    reasoning: Reasoning = "keep",
) -> list[Turn]:
    """The trained turns of a conversation, in order; empty where nothing is to be trained.

    Raises RowRefused where one of them cannot be graded exactly.
    """
    scene = Scene(template, conversation)
    turns: list[Turn] = []
    for index, weight in trained_turns(conversation.messages, train_on=train_on):
        message = conversation.messages[index]
        if index == 0:
            raise RowRefused("no prompt before the reply", "the conversation opens with the assistant")
        if message.get("content") is None and not message.get("tool_calls"):
            raise RowRefused("reply is null", f"message {index}: no content and no tool calls")
        turns.append(_turn(scene, index, weight, stops, reasoning))
    return turns


def trained_turns(messages: Sequence[Message], *, train_on: TrainOn) -> list[tuple[int, float]]:
    """The indices and weights of the assistant messages that teach: weight 0 or `train: false` is context.

    Under `none-but-flagged` only those teach that say so: `train: true`, or a weight of their own.
    """
    replies = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    if train_on == "last":
        replies = replies[-1:]
    if train_on == "none-but-flagged":
        replies = [
            at for at in replies if messages[at].get("train") or messages[at].get("weight") is not None
        ]
    weighted = [(index, _weight(messages[index], index)) for index in replies]
    return [(index, weight) for index, weight in weighted if weight != 0.0]


def _weight(message: Message, index: int) -> float:
    """The weight of a message as a number, 0.0 for `train: false`."""
    # {"role": "assistant", "content": "...", "weight": 0.5}: half a turn in the loss, not half of its tokens.
    if message.get("train") is False:
        return 0.0
    weight = message.get("weight")
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise RowRefused("weight is not a number", f"message {index}: weight {weight!r}")
    return float(weight)


def _turn(scene: Scene, index: int, weight: float, stops: Stops, reasoning: Reasoning) -> Turn:
    """Turn `index`, graded exactly or refused."""
    context = scene.prompt(index)
    scene, message = _as_followed(scene, index, context, reasoning)
    reply = full = scene.reply(index)
    # Where the reply's render begins with the prompt, the origins of what is fed are known already.
    extends = full.text.startswith(context)
    fed = _slice(full, 0, len(context)) if extends else scene.traced_prompt(index, context)
    history = check_history(scene.messages[:index], fed)
    seam = find_seam(index, fed, full)
    closed = seam.block if is_closed(seam.block) else closed_by(context)
    if closed and is_block(full.text[seam.begin :].lstrip()):
        raise refuse_disagreement(index, f"the prompt has {closed!r} already, and the reply has its own")
    if seam.block:
        full, seam = _follow_block(scene, index, full, seam, reasoning)
    elif _is_forgotten(message, index, full):
        full, seam = _with_reply(full, seam, index, message["content"], 0)
    end = stops.first(full.text, max(seam.begin, seam.own[1]))
    if end is None:
        full, end = _ended_by(stops.controls.match(scene.after(index, reply.text)), index, full)
    kept = check_reply(message, index, full, (seam.begin, end[0]), opened_by(context) or "")
    completion = _slice(full, seam.begin, end[0])
    _refuse_foreign(completion, index)
    return Turn(
        index,
        context,
        completion.text,
        end[1],
        weight,
        completion.runs,
        completion.leaves,
        _untrained(message, completion, index),
        replace(kept, forgotten=history.forgotten, searched=kept.searched or history.searched),
        extends,
    )


def _ended_by(header: re.Match[str] | None, index: int, full: Rendered) -> tuple[Rendered, tuple[int, str]]:
    """The render with the control token that opens whatever comes next, where the template closes no turn itself."""
    if header is None:
        raise RowRefused(
            "no stop token after the reply",
            f"message {index}: the render ends {full.text[-40:]!r}, with no control token of the tokenizer",
        )
    length = len(full.text)
    runs = (*full.runs, Run(length, length + header.end(), OWN, 0))
    return Rendered(full.text + header[0], runs, full.leaves), (length + header.end(), header[0])


def _as_followed(scene: Scene, index: int, context: str, reasoning: Reasoning) -> tuple[Scene, Message]:
    """The scene in which a reply follows its prompt: "why</think>so" after "<think>\n" is given back its tag."""
    message = scene.messages[index]
    block = opened_by(context)
    if block is None:
        return scene, message
    if reasoning == "refuse" and not has_reasoning(message):
        raise refuse_disagreement(index, f"the prompt ends {block!r}, and the reply has no reasoning")
    content = message.get("content")
    if isinstance(content, str) and (opened := with_opening(content, block)) != content:
        scene = scene.saying(index, opened)
    return scene, scene.messages[index]


def _follow_block(
    scene: Scene, index: int, full: Rendered, seam: Seam, reasoning: Reasoning
) -> tuple[Rendered, Seam]:
    """The render of a reply that goes on inside, or behind, the reasoning block that only the prompt has."""
    message = scene.messages[index]
    content = message.get("content")
    if is_closed(seam.block):
        return full, seam
    start = after_opening(content, seam.block) if isinstance(content, str) else None
    if isinstance(content, str) and start is not None:
        return _with_reply(full, seam, index, content, start)
    if has_reasoning(message) or reasoning != "empty":
        lack = "the template drops the reply's own" if has_reasoning(message) else "the reply has none"
        raise refuse_disagreement(index, f"the prompt opens {seam.block!r}, and {lack}")
    return _insert(full, seam.begin, emptied(seam.block), seam)


def _is_forgotten(message: Message, index: int, full: Rendered) -> bool:
    """Whether the template drops the reasoning that a reply begins with, as if it were history already."""
    content = message.get("content")
    # The whitespace behind the closing tag may stay: "<think>why</think>\n\nso" -> "\n\nso".
    end = len(content[: inline_block(content)].rstrip()) if isinstance(content, str) else 0
    kept = [run.offset for run in full.runs if run.leaf >= 0 and full.leaves[run.leaf].message == index]
    return bool(end and full.leaves) and min(kept, default=end) >= end


def _with_reply(full: Rendered, seam: Seam, index: int, content: str, start: int) -> tuple[Rendered, Seam]:
    """The reply as the row has it, from behind its opening tag on, where the template would drop what it thought."""
    leaf = next(k for k, leaf in enumerate(full.leaves) if leaf.message == index and leaf.text == content)
    ends = [run.offset + run.end - run.start for run in full.runs if run.leaf == leaf]
    said = content[start : max(ends, default=len(content))]
    tail = _slice(full, seam.own[1], len(full.text))
    text = said + tail.text
    runs = [Run(0, len(said), leaf, start)] + [_moved(run, len(said)) for run in tail.runs]
    return Rendered(text, tuple(runs), full.leaves), Seam(0, seam.block, (0, len(said)))


def _insert(full: Rendered, at: int, text: str, seam: Seam) -> tuple[Rendered, Seam]:
    """The render with text of the template's own put in at `at`."""
    before, after = _slice(full, 0, at), _slice(full, at, len(full.text))
    runs = (
        *before.runs,
        Run(at, at + len(text), OWN, 0),
        *(_moved(run, at + len(text)) for run in after.runs),
    )
    own = (seam.own[0] + len(text), seam.own[1] + len(text))
    return Rendered(before.text + text + after.text, runs, full.leaves), replace(seam, own=own)


def _moved(run: Run, by: int) -> Run:
    """The run, so many characters further on."""
    return run._replace(start=run.start + by, end=run.end + by)


def _slice(rendered: Rendered, start: int, end: int) -> Rendered:
    """A part of a render with its origins."""
    runs = tuple(
        Run(first - start, last - start, run.leaf, run.offset + first - run.start if run.leaf >= 0 else 0)
        for run in rendered.runs
        if (first := max(start, run.start)) < (last := min(end, run.end))
    )
    return Rendered(rendered.text[start:end], runs, rendered.leaves)


def _refuse_foreign(completion: Rendered, index: int) -> None:
    """Nothing that somebody else said is graded."""
    for run in completion.runs:
        if run.leaf >= 0 and completion.leaves[run.leaf].message != index:
            leaf, text = completion.leaves[run.leaf], completion.text[run.start : run.end]
            raise RowRefused(
                "text of another message in the reply",
                f"message {index}: {text[:60]!r} of message {leaf.message}, {leaf.field}",
            )


def _untrained(message: Message, completion: Rendered, index: int) -> tuple[tuple[int, int], ...]:
    """The characters of a completion that come from parts of the content with `train: false`."""
    marked: Sequence[tuple[int, int]] = message.get("untrained") or ()
    if not marked:
        return ()
    runs = [
        run for run in completion.runs if run.leaf >= 0 and completion.leaves[run.leaf].field == "content"
    ]
    if not runs:
        raise RowRefused(
            "parts of the reply cannot be told apart", f"message {index}: the render hides where they are"
        )
    return tuple(
        (
            run.start + max(start, run.offset) - run.offset,
            run.start + min(end, run.offset + run.end - run.start) - run.offset,
        )
        for run in runs
        for start, end in marked
        if max(start, run.offset) < min(end, run.offset + run.end - run.start)
    )
