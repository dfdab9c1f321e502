"""What a certificate means for the user, in plain words, and what to do about each thing it found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from burnish.recipe.advice import Finding
from burnish.training.certificate import Certificate

# The start of a reason, as rows are refused or changed for it, and what mends it.
ADVICE: Mapping[str, str] = {
    "template refused: took longer": "the template does not come to an end; look at its loops, or name another: "
    "chat_template=FILE.jinja",
    "template refused: needed more": "the template builds a text without end; name another: chat_template=FILE.jinja",
    "template refused": "the template itself says no to these rows, in its own words above: correct the roles and "
    "their order, or leave the rows out: on_bad_row=drop",
    "reasoning not found": "the template has no place for reasoning: say reasoning=off to train without it",
    "reasoning left out": "reasoning=off leaves it out, as it was told to",
    "reasoning": "the template's prompt opens a reasoning block that these rows do not have: say reasoning=empty to "
    "close it at once, or reasoning=off",
    "tool call not found": "the template has no place for tool calls: use the template of a model that calls tools",
    "reply not found": "the template rewrites these replies; look at one: burnish preview DATA --model MODEL",
    "message lost": "the template leaves these messages out of the prompt: inference would not see them either; "
    "correct their roles, or name a template that has a place for them",
    "template does not extend its own prompt": "what the template shows as history is not what it asks with; "
    "train_on=last often helps, else name another template",
    "no stop token after": "the template ends a turn in plain text: a model could not learn to stop; add the eos "
    "token to the template behind a reply",
    "not one stop token": "a reply holds the token that ends a turn; remove it from the text",
    "control token in content": "text spells a control token that the template acts on; remove it from these rows",
    "control token in a role": "a role is one of system, user, assistant, tool",
    "parts of the reply": "say train: false of whole messages here; this template does not show where parts end",
    "reply stands in its own prompt": "the template shows the reply before it is asked for; name another template",
    "text of another message": "the template mixes other messages into the reply; name another template",
    "seam": "prompt and reply have no tokens of their own where they meet; begin these replies with a letter",
    "no prompt before the reply": "put a user message before the first reply",
    "no reply to train on": "every reply has weight 0 or train: false; such rows teach nothing",
    "reply is null": "a reply has content or tool calls",
    "weight is not a number": "a weight is a number: 0, 1, 0.5",
    "too long": "raise max_length, or say on_too_long=cut_answer",
    "nothing graded": "all that is graded lies beyond max_length; raise it",
    "duplicate": "the first of equal rows is kept; nothing to do",
    "empty document": "remove rows without text",
    "reply trimmed by the template": "the template strips the ends of replies; inference gives them stripped too",
    "reply not fully spelled": "the vocabulary has no token for some characters; the model cannot write them",
}

UNREADABLE = "read the row at the place that the ledger names, and correct it there"
"""What is said of a reason that has no words of its own: rows that could not be read."""


def advice_on(reason: str) -> str:
    """What to do about a reason for which rows are refused, cut or changed."""
    fitting = [start for start in ADVICE if reason.startswith(start)]
    return ADVICE[max(fitting, key=len)] if fitting else UNREADABLE


def counsel(certificate: Certificate) -> Iterator[Finding]:
    """What the template does to the data, then each finding of a certificate with what to do."""
    split = certificate.split
    if split["conversations"]:
        cause = "drops earlier reasoning" if split["with_reasoning"] else "rewrites earlier turns"
        yield Finding(
            "chat_template",
            f"this template {cause}",
            f"{split['conversations']:,} conversations become {split['views']:,} views, one for each context that "
            f"inference would see; {split['shared_tokens'] / split['tokens']:.0%} of their tokens are shared prefix. "
            "train_on=last makes one view of each",
        )
    for kind, counts in (
        ("dropped", certificate.refused),
        ("cut", certificate.cut),
        ("changed", certificate.changes),
    ):
        for reason, count in counts.items():
            yield Finding(
                "datasets", f"{count:,} {'row' if count == 1 else 'rows'} {kind}: {reason}", advice_on(reason)
            )
    for kind, count in certificate.unusual.items():
        if kind in _UNUSUAL:
            yield Finding("datasets", f"{count:,} {kind.replace('_', ' ')}", _UNUSUAL[kind])


_UNUSUAL = {
    "control_lookalikes": "text that looks like a control token is encoded as text, in training and in serving",
    "forgotten_reasoning": "turns before which the template drops what was thought earlier, in training and in "
    "serving",
    "searched_replies": "replies found by their text, for the template hides where it went: see burnish preview",
    "loose_prompts": "turns that the template shows otherwise than it prompts with; inference's prompt is fed",
    "seam_merges": "the tokenizer would have joined prompt and reply; they are encoded apart, as inference does",
}
