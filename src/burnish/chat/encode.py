"""A row to the token sequences that training feeds, and messages to the ids that inference feeds.

    encoder = Encoder(template, tokenizer)
    encoder.encode(row)            -> [Example(input_ids=[1, 320, ...], weights=[0.0, ..., 1.0, 1.0])]
    encoder.prompt_ids(messages)   -> what generation starts from, and exactly what each graded turn follows

A rendered conversation is always encoded without the tokenizer's own BOS and EOS: there are as many as the
template prints. Conversations give one sequence per trained turn, and fewer where one turn's sequence is
the very beginning of the next turn's context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from tokenizers import Tokenizer

from burnish.chat.canonical import canonical, wants_json_arguments
from burnish.chat.grade import Stops, TrainOn, Turn, find_stops, grade
from burnish.chat.guard import Guard, Guarded
from burnish.chat.origins import origins_of
from burnish.chat.provenance import TokenOrigin
from burnish.chat.reasoning import Reasoning, is_reasoning_tag, turned_off, without_reasoning
from burnish.chat.refusal import RowRefused
from burnish.chat.scene import Scene
from burnish.chat.segments import SegmentTokenizer, any_of
from burnish.chat.template import ChatTemplate, TemplateRefusal
from burnish.errors import DataError
from burnish.types import Completion, Conversation, Document, Example, Message, Row


class FastTokenizer(Protocol):
    """What encoding needs of a transformers fast tokenizer."""

    @property
    def backend_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` underneath."""
        ...

    @property
    def eos_token(self) -> Any:
        """The end-of-text token, None where there is none."""
        ...


@dataclass(slots=True)
class _View:
    """A token sequence under construction: weights beside ids, and the turns graded in it."""

    ids: list[int]
    weights: list[float]
    turns: tuple[int, ...]

    def grow(self, context: list[int], completion: list[int], weights: list[float], turn: Turn) -> bool:
        """Take in a later turn if all that is here begins its context; say whether it was so."""
        # here:    <|im_start|> user u1 <|im_end|> ... assistant a1 <|im_end|>
        # context: <|im_start|> user u1 <|im_end|> ... assistant a1 <|im_end|> \n ... assistant
        # Not so after a merge was undone, or where a template drops earlier reasoning: then two sequences.
        here = len(self.ids)
        if context[:here] != self.ids:
            return False
        self.ids = context + completion
        self.weights += [0.0] * (len(context) - here) + weights
        self.turns += (turn.index,)
        return True


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """All that an encoder is made from, small enough to be sent to another process (a few MB of tokenizer)."""

    template: ChatTemplate | None
    tokenizer_json: str
    eos_token: str
    train_on: TrainOn = "all"
    reasoning: Reasoning = "keep"

    def build(self) -> Encoder:
        """The encoder."""
        tokenizer = _PlainTokenizer(Tokenizer.from_str(self.tokenizer_json), self.eos_token)
        return Encoder(self.template, tokenizer, train_on=self.train_on, reasoning=self.reasoning)


@dataclass(frozen=True, slots=True)
class _PlainTokenizer:
    """A tokenizer without transformers around it."""

    backend_tokenizer: Tokenizer
    eos_token: str


class Encoder:
    """Encodes rows with one template and one tokenizer, and counts what was out of the ordinary.

    `encode` raises RowRefused, with a countable reason, for a row that cannot be graded exactly.

    `counts`: `seam_merges` (a token of the tokenizer would have joined prompt and reply),
    `control_lookalikes` (text that looks like a control token, encoded as text), `trimmed_replies`
    (the template dropped whitespace around a reply), `unspelled_replies` (the vocabulary has gaps, and
    some of a reply has no ids), `forgotten_reasoning` (turns before which the template drops what was thought
    earlier), `reasoning_left_out` (messages, under `reasoning: off`), `searched_replies` (turns whose text was
    searched for in the render, for the template hides where it went) and `loose_prompts` (turns that the
    template renders with other whitespace, or without the reasoning block, than it prompts with).
    """

    def __init__(
        self,
        template: ChatTemplate | None,
        tokenizer: FastTokenizer,
        *,
        train_on: TrainOn = "all",
        reasoning: Reasoning = "keep",
    ) -> None:
        if tokenizer.eos_token is None:
            raise DataError(
                "the tokenizer has no eos_token",
                rule="a model learns to stop from an end-of-text token",
                remedy="set eos_token in the model's tokenizer_config.json",
            )
        eos = str(tokenizer.eos_token)
        if template is not None and reasoning == "off":
            template = turned_off(template)
        self.template = template
        self.train_on = train_on
        self.reasoning = reasoning
        self.counts: Counter[str] = Counter()
        self._segments = SegmentTokenizer(tokenizer.backend_tokenizer)
        if eos not in self._segments.added:
            raise DataError(
                f"eos_token {eos!r} is not one of the tokenizer's added tokens",
                rule="the end-of-text token is one id, never spelled from several",
                remedy="add it to the tokenizer: tokenizer.add_special_tokens({'eos_token': ...})",
            )
        self.eos_id = self._segments.added[eos]
        bos = template.special_tokens.get("bos_token") if template is not None else None
        self.bos_id = self._segments.added.get(str(bos))
        self._prefix_ids = self._segments.prefix_ids
        self._stop_ids = {self.eos_id}
        # What nobody may forge: <s>, <|im_end|>, and what the template itself writes, special or not.
        controls = self._segments.special | _written_by(template, self._segments.added) | {eos}
        pattern = any_of(controls)
        self._stops = (
            find_stops(template, pattern, eos) if template is not None else Stops(pattern, frozenset({eos}))
        )
        self._stop_ids |= {
            self._segments.added[stop] for stop in self._stops.known & self._segments.added.keys()
        }
        self._segments.guard(controls)
        # What was thought stands in tags that some tokenizers list as special, and a reply is to write them.
        forbidden = {token for token in self._segments.special if not is_reasoning_tag(token)}
        self._guard = Guard(controls=controls, in_replies=forbidden | self._stops.known)

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids at which generation must stop: eos, the template's ends of a turn, and every stop graded so far."""
        return frozenset(self._stop_ids)

    def prompt_ids(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """What inference feeds to have the next reply: the prompt of the template, never a forged token."""
        asked = Conversation(
            list(messages),
            tools=None if tools is None else [dict(tool) for tool in tools],
            documents=None if documents is None else [dict(document) for document in documents],
            variables=None if variables is None else dict(variables),
        )
        guarded = self._guard.apply(self._required_template(), self._rendered(asked)[0])
        scene = Scene(guarded.template, guarded.conversation)
        return self._segments.ids(scene.prompt(len(messages)), mark=guarded.mark)

    def text_prompt_ids(self, content: Completion | Document) -> list[int]:
        """What inference feeds to have plain text continued; of a document, only what a tokenizer puts first."""
        if isinstance(content, Document):
            return self._prefix_ids
        prompt, _, mark, _ = self._guard.apply_text(content.prompt, content.completion)
        return self._begun(prompt, mark)

    def as_rendered(self, conversation: Conversation) -> Conversation:
        """The conversation in the form in which its template is asked."""
        return self._rendered(conversation)[0]

    def decode(self, ids: list[int]) -> str:
        """The text of ids, control tokens written out."""
        return self._segments.text(ids)

    def respelled(self, text: str) -> str:
        """A text as its own ids spell it, where a tokenizer normalises what it is given."""
        return self._segments.text(self._segments.ids(text))

    def encode(self, row: Row) -> list[Example]:
        """The sequences that a row gives, each with at least one graded token."""
        match row.content:
            case Conversation():
                views = self._conversation(row.content)
            case Completion():
                views = [self._completion(row.content)]
            case Document():
                views = [self._document(row.content)]
        return [Example(row.index, row.source, view.turns, view.ids, view.weights) for view in views]

    def pieces(self, example: Example) -> list[str]:
        """The text of each token of an example, for people to read."""
        return self._segments.pieces(example.input_ids)

    def origins(self, row: Row, example: Example) -> list[TokenOrigin]:
        """Where each token of an example of this row came from, and why it is graded or not."""
        guarded: Guarded | None = None
        turns: list[Turn] = []
        if isinstance(row.content, Conversation):
            guarded, turns, _ = self._graded(row.content)
        return origins_of(example, turns, guarded, self._segments, self.stop_ids)

    def _rendered(self, conversation: Conversation) -> tuple[Conversation, int]:
        """The conversation as its template gets it, and how many messages had their reasoning left out."""
        if any(message.get("tool_calls") for message in conversation.messages):
            conversation = canonical(conversation, json_arguments=self._json_arguments)
        return without_reasoning(conversation) if self.reasoning == "off" else (conversation, 0)

    @cached_property
    def _json_arguments(self) -> bool:
        return wants_json_arguments(self._required_template())

    def _graded(self, conversation: Conversation) -> tuple[Guarded, list[Turn], int]:
        """A conversation's look-alikes marked, its trained turns, and the messages without their reasoning."""
        conversation, left_out = self._rendered(conversation)
        guarded = self._guard.apply(self._required_template(), conversation)
        turns = grade(
            guarded.template,
            guarded.conversation,
            stops=self._stops,
            train_on=self.train_on,
            reasoning=self.reasoning,
        )
        if not turns:
            raise RowRefused("no reply to train on", "no assistant message has a weight")
        return guarded, turns, left_out

    def _conversation(self, conversation: Conversation) -> list[_View]:
        guarded, turns, left_out = self._graded(conversation)
        views: list[_View] = []
        for turn in turns:
            context = self._segments.ids(turn.context, mark=guarded.mark)
            completion = self._completion_ids(turn, guarded.mark)
            if not context:
                raise RowRefused(
                    "no prompt before the reply", f"message {turn.index}: the prompt has no tokens"
                )
            weights = self._weights(turn, completion, guarded.mark)
            if not views or not views[-1].grow(context, completion, weights, turn):
                views.append(_View(context + completion, [0.0] * len(context) + weights, (turn.index,)))
            self._count(turn, completion, guarded.mark)
        self.counts["control_lookalikes"] += guarded.lookalikes
        self.counts["reasoning_left_out"] += left_out
        return views

    def _count(self, turn: Turn, completion: list[int], mark: str) -> None:
        self.counts["unspelled_replies"] += self._segments.loses_text(turn.completion, completion, mark=mark)
        self.counts["trimmed_replies"] += turn.kept.trimmed
        self.counts["forgotten_reasoning"] += turn.kept.forgotten
        self.counts["searched_replies"] += turn.kept.searched
        self.counts["loose_prompts"] += not turn.exact

    def _weights(self, turn: Turn, completion: list[int], mark: str) -> list[float]:
        """The weight of each token of a completion: 0.0 where it holds a character that is not to be trained."""
        if not turn.untrained:
            return [turn.weight] * len(completion)
        spans = None if mark else self._segments.spans(completion, turn.completion)
        if spans is None:
            raise RowRefused(
                "parts of the reply cannot be told apart",
                f"message {turn.index}: the tokens of {turn.completion[:40]!r} cannot be laid over its text",
            )
        weights = [
            0.0 if any(first < end and start < last for first, last in turn.untrained) else turn.weight
            for start, end in spans
        ]
        # The part before the stop token may be context; that the answer ends there is learnt all the same.
        return [*weights[:-1], turn.weight]

    def _completion_ids(self, turn: Turn, mark: str) -> list[int]:
        """The ids of a turn's completion; its last is the stop token, found there and nowhere else."""
        ids, merged = self._segments.continuation_ids(turn.context, turn.completion, mark=mark)
        # Two stop tokens in one turn would teach to go on after the first; none, to never end.
        stop = self._segments.added[turn.stop]
        if not ids or ids[-1] != stop or ids.count(stop) != 1:
            raise RowRefused(
                "not one stop token in the reply",
                f"message {turn.index}: {ids.count(stop)} times {turn.stop!r} in {turn.completion[-40:]!r}",
            )
        self._stop_ids.add(stop)
        self.counts["seam_merges"] += merged
        return ids

    def _completion(self, content: Completion) -> _View:
        prompt, reply, mark, lookalikes = self._guard.apply_text(content.prompt, content.completion)
        context = self._begun(prompt, mark)
        completion, merged = self._segments.continuation_ids(prompt, reply, mark=mark)
        completion = [*completion, self.eos_id]
        self.counts["seam_merges"] += merged
        self.counts["control_lookalikes"] += lookalikes
        return _graded_after(context, completion)

    def _begun(self, text: str, mark: str) -> list[int]:
        # "Q: 1\nA:" + " yes" -> <s> Q : 1 \n A : | yes </s>: BOS as the tokenizer puts it, its EOS never.
        return self._prefix_ids + self._segments.ids(text, mark=mark)

    def _document(self, content: Document) -> _View:
        if not content.text:
            raise RowRefused("empty document", "the text has no characters")
        _, text, mark, lookalikes = self._guard.apply_text("", content.text)
        self.counts["control_lookalikes"] += lookalikes
        return _graded_after(self._prefix_ids, [*self._segments.ids(text, mark=mark), self.eos_id])

    def _required_template(self) -> ChatTemplate:
        if self.template is None:
            raise DataError(
                "a conversation, and the model has no chat template",
                rule="a conversation is rendered by the model's own chat template",
                remedy="name one in the recipe: chat_template: chatml (or FILE.jinja)",
            )
        return self.template


def cut_answer(example: Example, max_length: int) -> Example | None:
    """The example cut to `max_length` tokens at its end; None where no graded token is left.

    The stop token falls with the end of the answer: a cut answer is never taught to stop.
    """
    if len(example) <= max_length:
        return example
    kept = replace(example, input_ids=example.input_ids[:max_length], weights=example.weights[:max_length])
    lost = example.num_graded - kept.num_graded
    return replace(kept, cut=example.cut + lost) if kept.num_graded else None


def _graded_after(context: list[int], completion: list[int]) -> _View:
    """A sequence with all of its completion graded, but for a token that nothing comes before."""
    weights = [0.0] * len(context) + [1.0] * len(completion)
    # The first token of all has nothing before it to be predicted from.
    weights[0] = 0.0
    if not any(weights):
        raise RowRefused("no reply to train on", "one token, and nothing before it")
    return _View(context + completion, weights, ())


def _written_by(template: ChatTemplate | None, added: Mapping[str, int]) -> frozenset[str]:
    """The added tokens that the template itself writes: its own text has them, or a probe of it.

    Others are mere words of the vocabulary (Gemma lists "\\n\\n" and "<b>"), free for anyone to type.
    """
    if template is None:
        return frozenset()
    text = template.source
    probe = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    for messages in (probe[:1], probe):
        try:
            text += template.render(messages, add_generation_prompt=True)
        except TemplateRefusal:
            continue
    return frozenset(token for token in added if token in text and not token.isspace())
