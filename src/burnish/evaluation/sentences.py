"""Words, sentences and words in capitals, counted as IFEval counts them, without NLTK and its downloads.

    "Dr. Lee left. Why?"            2 sentences: "Dr." is an abbreviation
    "1. Mix. 2. Bake."              4: a number with a full stop ends a sentence, as NLTK's Punkt has it
    "I'M HERE, DON'T GO"            6 tokens in capitals: I 'M HERE DO N'T GO

Words are runs of `\\w`. Sentences follow Punkt's rules with a list of abbreviations in place of its trained model, so
they are near it and not always the same; capitals follow the Penn Treebank's splits.
"""

from __future__ import annotations

import re

_ABBREVIATIONS = """
a.d a.m adm al approx apr assn assoc aug ave b.c blvd bros c.e ca capt cf cmdr co col corp d.c dec dept dr e.g
ed eds eg est etc feb ft gen gov hon hr i.e ie inc jan jr lb lt ltd m.d maj messrs min mr mrs ms mt n.y nos
nov oct oz p.m p.p.s p.s pp ph.d prof pvt rd rep rev sen sep sept sgt sr st thu tue tues u.k u.n u.s u.s.a vol
vols vs yr yrs
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
"""What ends in a full stop and goes on, in lower case and without the stop."""

_STARTERS = """
a after although an and another as at because before but by despite during each even every finally first for
from he here his how however i if in instead is it its let meanwhile moreover my next now of on once one or
our overall over she since so some such that the their then there these they this those though through thus to
today we what when where while who why with you your
"""
STARTERS = frozenset(_STARTERS.split())
"""Words whose capital says that a sentence begins."""

_END = re.compile(r"[.?!]")
_AFTER = frozenset(")\";}]*:@'({[?!")
_CLOSERS = "\"')]}"
_OPENERS = "([{<\"'*_“‘"


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores: "don't" is two."""
    return len(re.findall(r"\w+", text))


def count_sentences(text: str) -> int:
    """How many sentences Punkt's rules find in a text."""
    words = text.split()
    if not words:
        return 0
    breaks, rest = 0, ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        end = _last_end(word, is_last=not following)
        if end is None or not _breaks(word[: end + 1], word[end + 1 :] or following):
            continue
        rest = word[end + 1 :].lstrip(_CLOSERS)
        breaks += bool(rest or following)
    return breaks + 1


def _last_end(word: str, *, is_last: bool) -> int | None:
    """Where in a word a sentence may end: the last mark with punctuation right after it, or at the word's end."""
    for found in reversed(list(_END.finditer(word))):
        at = found.start()
        if at + 1 == len(word):
            if not is_last:
                return at
        elif word[at + 1] in _AFTER:
            return at
    return None


def _breaks(token: str, following: str) -> bool:
    """Whether `token`, which ends in a mark, ends a sentence before `following`."""
    if token[-1] in "?!":
        return True
    bare = token[:-1].lstrip(_OPENERS).lower()
    start = following.lstrip(_OPENERS)
    name = re.match(r"\w*", start)
    starts = start[:1].isupper() and name is not None and name[0].lower() in STARTERS
    if bare.endswith(".") or not bare:  # "..." goes on unless a sentence clearly begins
        return starts
    if len(bare) == 1 and bare.isalpha():
        return starts
    if bare in ABBREVIATIONS or bare.split("-")[-1] in ABBREVIATIONS:
        return starts
    return not (bare.isdigit() and start[:1].islower())


_TREEBANK = (
    (r'(["“”„«»]|``|\'\')', r" \1 "),
    (r"([:,])([^\d])", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"(\.{2,})", r" \1 "),
    (r"([;@#$%&?!()\[\]{}<>])", r" \1 "),
    (r"(--)", r" \1 "),
    (r"([^' ])('S|'M|'D|')(?= )", r"\1 \2"),
    (r"([^' ])('LL|'RE|'VE|N'T)(?= )", r"\1 \2"),
    (r"\b(CAN)(NOT)\b", r"\1 \2"),
    (r"\b(GIM|LEM)(ME)\b", r"\1 \2"),
    (r"\b(GON|WAN)(NA)\b", r"\1 \2"),
    (r"\b(GOT)(TA)\b", r"\1 \2"),
    (r"(?<= )('T)(IS|WAS)\b", r"\1 \2"),
)


def count_capital_words(text: str) -> int:
    """Treebank tokens without a lower-case letter and with one in capitals."""
    split = f" {' '.join(text.split())} "
    for pattern, apart in _TREEBANK:
        split = re.sub(pattern, apart, split)
    return sum(token.isupper() for token in split.split())
