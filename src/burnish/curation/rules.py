"""Rules by which rows go: each has a name, a value, and words for what it saw.

    read_rules(["words=3:400", "refusal", "script=Latin"])  ->  [Bound(words, (3, 400)), ...]

A rule looks at a row and returns '' or what it saw; the first rule that sees something names the row's reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.curation import signs
from burnish.curation.flow import KEPT, Verdict, removed
from burnish.curation.items import Item
from burnish.curation.texts import prompt_of, response_of, texts_of
from burnish.data.reject import show
from burnish.errors import UsageError
from burnish.types import Content, Conversation


@dataclass(frozen=True)
class Rule:
    """One rule: what it looks for, how its value is read and what it is unless given."""

    help: str
    see: Callable[[Content, Any], str]
    read: Callable[[str], Any] = str
    default: str | None = None


def _range(text: str) -> tuple[float, float]:
    """`3:400`, `3:` and `:400` as bounds, both allowed values."""
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} has no colon")
    bounds = float(low or 0), float(high or "inf")
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"{text!r} is empty")
    return bounds


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is no share")
    return value


def _scripts(text: str) -> frozenset[str]:
    known = {name for name, _ in signs.SCRIPTS} | {"other", "none"}
    asked = frozenset(text.split(","))
    if not asked <= known:
        raise ValueError(f"{', '.join(sorted(asked - known))}: the scripts are {', '.join(sorted(known))}")
    return asked


def _outside(count: float, bounds: tuple[float, float], what: str) -> str:
    return "" if bounds[0] <= count <= bounds[1] else f"{count:,.0f} {what}"


def _script(content: Content, asked: frozenset[str]) -> str:
    found = signs.main_script(response_of(content))
    return "" if found in asked or found == "none" else f"the response is in {found} script"


def _repetition(content: Content, most: float) -> str:
    share = signs.repeated_share(response_of(content))
    return f"{share:.0%} of the response's word sequences stood in it before" if share > most else ""


def _order(content: Content, _: str) -> str:
    """Roles that do not alternate as a chat does, or a conversation that does not end with the assistant."""
    if not isinstance(content, Conversation):
        return ""
    roles = [message["role"] for message in content.messages]
    if roles[-1] != "assistant":
        return f"the last turn is the {roles[-1]}'s"
    if "system" in roles[1:]:
        return f"turn {roles.index('system', 1) + 1} is the system's"
    # A tool answers between two turns of the assistant; nothing else stands twice.
    doubled = [k for k in range(1, len(roles)) if roles[k] == roles[k - 1] != "tool"]
    return f"turns {doubled[0]} and {doubled[0] + 1} are both the {roles[doubled[0]]}'s" if doubled else ""


def _listed(look: Callable[[str], list[str]]) -> Callable[[Content, str], str]:
    """A rule that looks at all texts of the row for what should not be in any."""

    def see(content: Content, _: str) -> str:
        return ", ".join(look("\n".join(texts_of(content))))

    return see


RULES = {
    "words": Rule(
        "words of the responses, LOW:HIGH",
        lambda c, b: _outside(len(response_of(c).split()), b, "words"),
        _range,
        "1:",
    ),
    "prompt-words": Rule(
        "words of the prompts, LOW:HIGH",
        lambda c, b: _outside(len(prompt_of(c).split()), b, "words in the prompts"),
        _range,
    ),
    "characters": Rule(
        "characters of the responses, LOW:HIGH",
        lambda c, b: _outside(len(response_of(c)), b, "characters"),
        _range,
    ),
    "turns": Rule(
        "messages of a conversation, LOW:HIGH",
        lambda c, b: _outside(len(c.messages), b, "messages") if isinstance(c, Conversation) else "",
        _range,
    ),
    "script": Rule(
        "scripts the responses may be in, as Latin,Han (a script, not a language)", _script, _scripts
    ),
    "repetition": Rule("most of a response's word sequences of 4 that repeat", _repetition, _share, "0.3"),
    "refusal": Rule(
        "responses that begin by declining", lambda c, _: signs.refusal(response_of(c)), default=""
    ),
    "cut": Rule(
        "responses that end in the middle of something",
        lambda c, _: signs.cut_end(response_of(c)),
        default="",
    ),
    "odd": Rule(
        "control, zero-width and private characters, wrong encodings",
        _listed(signs.odd_characters),
        default="",
    ),
    "controls": Rule("text like a tokenizer's control tokens", _listed(signs.control_lookalikes), default=""),
    "secrets": Rule("keys and passwords", _listed(signs.secrets), default=""),
    "personal": Rule(
        "e-mail addresses, telephone and card numbers", _listed(signs.personal_data), default=""
    ),
    "order": Rule("turns out of order, or without a reply at the end", _order, default=""),
}


@dataclass(frozen=True)
class Rules:
    """The judge by rules, as (name, value) pairs; picklable, for children."""

    asked: tuple[tuple[str, Any], ...]

    def __call__(self, items: Sequence[Item]) -> list[Verdict]:
        """The first rule that sees something names the reason."""
        return [self._verdict(item.row.content) for item in items]

    def _verdict(self, content: Content) -> Verdict:
        for name, value in self.asked:
            if seen := RULES[name].see(content, value):
                return removed(name, seen if name in ("script", "order") else show(seen)[1:-1])
        return KEPT


def read_rules(words: Sequence[str]) -> Rules:
    """Rules as the command line names them: `name` or `name=value`."""
    asked = []
    for word in words:
        name, equals, value = word.partition("=")
        rule = RULES.get(name)
        if rule is None:
            raise _unreadable(word, f"a rule is one of {', '.join(RULES)}")
        given = value if equals else rule.default
        if given is None:
            raise _unreadable(word, f"{name} needs a value: {rule.help}")
        try:
            asked.append((name, rule.read(given)))
        except ValueError as error:
            raise _unreadable(word, f"{rule.help}; {error}") from None
    if not asked:
        raise _unreadable("(none)", "rows go by the rules that are named, and no other")
    return Rules(tuple(asked))


def _unreadable(word: str, rule: str) -> UsageError:
    return UsageError(
        f"--rule {word}", rule=rule, remedy="write, say, --rule words=3:400 --rule refusal --rule cut"
    )
