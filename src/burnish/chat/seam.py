"""Where a reply begins: at the first character that the prompt does not already supply.

    prompt    ...<|im_start|>assistant\\n              reply   ...<|im_start|>assistant\\n|Hello.<|im_end|>
    prompt    ...<|im_start|>assistant\\n<think>\\n      reply   ...<|im_start|>assistant\\n|Hello.<|im_end|>
                                                             the template forgets the block that it prompts with

Most templates render a reply after the very prompt. Where one does not, the header before the reply's own
characters has to be that of the prompt, but for whitespace and a reasoning block, or the row is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import commonprefix

from burnish.chat.provenance import Rendered
from burnish.chat.reasoning import TAG, is_block, opened_by
from burnish.chat.refusal import RowRefused


@dataclass(frozen=True, slots=True)
class Seam:
    """Where the completion begins in the render of the reply.

    `block` is what of the prompt's reasoning block the render lacks ("" where it lacks nothing). `own` is where the
    message's own characters begin and end; both are the end of the header where it has none.
    """

    begin: int
    block: str
    own: tuple[int, int]


def find_seam(index: int, fed: Rendered, full: Rendered) -> Seam:
    """The seam of message `index` in `full`, given the prompt that is fed for it."""
    own, prompt = _extent(full, index), fed.text
    if full.text.startswith(prompt):
        begin = len(prompt)
        # Prompt "assistant\n<think>", reply "<think>why</think>so": the tag is fed, whoever wrote it.
        opened = opened_by(prompt) or ""
        if own is not None and own[0] < begin - len(opened):
            raise RowRefused(
                "reply stands in its own prompt", f"message {index}: {full.text[own[0] : own[0] + 60]!r}"
            )
        return Seam(begin, "", own or (begin, begin))
    end_of_header = own[0] if own else len(full.text)
    start = _end_of_others(full, index, before=end_of_header)
    asked = _end_of_others(fed, index, before=len(prompt))
    for header, block in _headers(prompt[asked:]):
        at = _follow(header, full.text, start, end_of_header)
        if at is not None:
            # What the template itself writes before the reply's text is the reply's: "<think>\n\n</think>\n\nYes."
            begin = at + len(full.text[at:end_of_header]) - len(full.text[at:end_of_header].lstrip())
            return Seam(begin, block, own or (begin, begin))
    shared = max(0, len(commonprefix([prompt, full.text])) - 20)
    raise RowRefused(
        "template does not extend its own prompt",
        f"message {index}: the prompt ends {prompt[shared:]!r} where the render of the reply has "
        f"{full.text[shared : shared + 60]!r}",
    )


def _headers(header: str) -> Iterator[tuple[str, str]]:
    """The header of a prompt and the reasoning block after it: with none first, then from the last tag on.

    At last without what ends the message before it: Bielik closes a tool's answer in the prompt, not in history.
    """
    tags = list(TAG.finditer(header))
    yield header, ""
    for tag in reversed(tags):
        if is_block(header[tag.start() :]):
            yield header[: tag.start()], header[tag.start() :]
    for tag in tags[1:]:
        if not is_block(header[tag.start() :]) and not header[tag.start() :].startswith("</"):
            yield header[tag.start() :], ""


def _follow(header: str, text: str, start: int, limit: int) -> int | None:
    """Where `text` goes on after `header`, whitespace left aside; None where it is another."""
    at = start
    for character in header:
        if character.isspace():
            continue
        while at < limit and text[at].isspace():
            at += 1
        if at >= limit or text[at] != character:
            return None
        at += 1
    return at


def _extent(rendered: Rendered, index: int) -> tuple[int, int] | None:
    """From the first to the last character of message `index`."""
    runs = [run for run in rendered.runs if run.leaf >= 0 and rendered.leaves[run.leaf].message == index]
    return (runs[0].start, runs[-1].end) if runs else None


def _end_of_others(rendered: Rendered, index: int, *, before: int) -> int:
    """Behind the last character of any other message, or of the tools; the beginning where there is none."""
    return max(
        (
            run.end
            for run in rendered.runs
            if run.leaf >= 0 and run.end <= before and rendered.leaves[run.leaf].message != index
        ),
        default=0,
    )
