"""Where each token of an example came from, for people: the message, its field, the characters, and why it counts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence

from burnish.chat.grade import Turn
from burnish.chat.guard import Guarded
from burnish.chat.provenance import OWN, Rendered, TokenOrigin, without
from burnish.chat.scene import Scene
from burnish.chat.segments import SegmentTokenizer
from burnish.types import Example

Span = tuple[int, int]


def origins_of(
    example: Example,
    turns: Sequence[Turn],
    guarded: Guarded | None,
    segments: SegmentTokenizer,
    stop_ids: Collection[int],
) -> list[TokenOrigin]:
    """One origin per token; `turns` are those of the whole row, `guarded` the row that they were graded from."""
    origins: list[TokenOrigin] = []
    for turn in turns:
        if guarded is None or turn.index not in example.turns:
            continue
        scene = Scene(guarded.template, guarded.conversation)
        context = without(guarded.mark, scene.traced_prompt(turn.index, turn.context))
        context_ids = segments.ids(turn.context, mark=guarded.mark)
        origins += _tokens(context_ids, context, segments, "prompt")[len(origins) :]
        reply = without(guarded.mark, Rendered(turn.completion, turn.runs, turn.leaves))
        ids, _ = segments.continuation_ids(turn.context, turn.completion, mark=guarded.mark)
        origins += [*_tokens(ids, reply, segments, None)[:-1], TokenOrigin("stop")]
    # Text without a template, or what was cut: graded is the text itself.
    origins += [TokenOrigin("reply" if weight else "prompt") for weight in example.weights[len(origins) :]]
    if not turns and example.input_ids and example.input_ids[-1] in stop_ids:
        origins[-1] = TokenOrigin("stop")
    return [
        TokenOrigin("no weight", origin.message, origin.field, origin.span)
        if not weight and origin.reason != "prompt"
        else origin
        for origin, weight in zip(origins, example.weights, strict=False)
    ]


def _tokens(
    ids: list[int], text: Rendered, segments: SegmentTokenizer, reason: str | None
) -> list[TokenOrigin]:
    """The origin of each id of a text; `reason` None: by the field that it came from."""
    spans = segments.spans(ids, text.text)
    if spans is None:
        return [TokenOrigin(reason or "reply")] * len(ids)
    starts = [run.start for run in text.runs]
    return [_origin(span, text, starts, reason) for span in spans]


def _origin(span: Span, text: Rendered, starts: list[int], reason: str | None) -> TokenOrigin:
    first = max(0, bisect_right(starts, span[0]) - 1)
    for run in text.runs[first:]:
        if run.start >= span[1]:
            break
        if run.leaf != OWN:
            leaf = text.leaves[run.leaf]
            begin, end = max(span[0], run.start), min(span[1], run.end)
            place = (run.offset + begin - run.start, run.offset + end - run.start)
            return TokenOrigin(reason or _kind(leaf.field), leaf.message, leaf.field, place)
    return TokenOrigin(reason or "template")


def _kind(field: str) -> str:
    if field.startswith("tool_calls"):
        return "tool call"
    return "reasoning" if field == "reasoning" else "reply"
