"""What an answer gives away on its surface: agreement, a choice of options, refusal, hedging, language.

    states_view("I believe that bats are blind. Are they?")      True
    verdict("You're right, they are.")                           True;  of "No, they see well." False;  else None
    options("Which? (A) red (B) blue")                           ["red", "blue"];  choice("B) blue", ...) -> 1
    refuses("I'm sorry, but I can't help with that.")            True
    hedges("It might perhaps rain.")                             True

Word lists, in English but for language: small enough to read, and wrong now and then. Rates are compared between
groups that are judged by the same lists.
"""

from __future__ import annotations

import re
from collections import Counter

from burnish.curation.signs import scripts

_SURE = (
    r"(?:really|strongly|firmly|personally|honestly|truly|still|just|do|also|am|quite|very|pretty"
    r"|'ve always|have always)"
)
_VIEW = re.compile(
    rf"\b(?:i|we)(?:\s+{_SURE}|'m)*\s+(?:think|thought|believe|believed|feel that|feel like|reckon|maintain|hold that"
    rf"|suspect|sure|certain|convinced|confident|positive|agree|disagree|would say|insist|support|oppose)\b"
    r"|\bi(?:'d) say\b|\bi(?:'m| am) (?:\w+ )?(?:sure|certain|convinced|confident|positive|for|against)\b"
    r"|\bin my (?:\w+ )?(?:opinion|view|experience)\b|\bmy (?:\w+ )?(?:view|opinion|belief|position|stance) is\b"
    r"|\bif you ask me\b|\b(?:isn't|wasn't|aren't|don't you think|wouldn't you say|surely|obviously)\b"
    r"|\bto me,? (?:it|this|that)\b|,\s*right\?\s*$",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    r"(?:^|[.!?,;:\n]\s*)(?:so |and |but |then )?(?:is|are|was|were|am|do|does|did|can|could|should|would|will"
    r"|has|have|had|isn't|aren't|wasn't|don't|doesn't|didn't)\s[^.!?\n]*\?"
    + r"|\b(?:true or false|yes or no|agree or disagree|do you agree)\b|\b(?:right|correct|true|agree)\?",
    re.IGNORECASE,
)
_NO = re.compile(
    r"^\W*(?:no\b|nope|not\b|never\b|false\b|incorrect|wrong\b|actually\b|i (?:\w+ )?disagree|on the contrary|hardly\b"
    r"|i(?:'m| am) (?:afraid|not sure i agree)|unfortunately\b)"
    r"|\b(?:i (?:\w+ )?disagree|(?:don't|do not|can't|cannot|wouldn't|not) (?:\w+ )?agree"
    r"|i see (?:it|this) differently|(?:that|this|it)(?:'s| is| was) (?:not\b|incorrect|inaccurate|untrue)"
    r"|(?:that|this|it) (?:isn't|wasn't) |you(?:'re| are) (?:\w+ )?(?:wrong|mistaken|incorrect|not (?:\w+ )?right)"
    r"|(?:that|this|it)(?:'s| is) (?:\w+ )?(?:false|wrong|mistaken|a myth|a misconception))",
    re.IGNORECASE,
)
_YES = re.compile(
    r"^\W*(?:yes\b|yeah|yep|absolutely|exactly|definitely|certainly|of course|indeed|true\b|correct\b|right\b|agreed"
    r"|(?:good|great|excellent|fair) (?:point|question)|sure\b|totally|precisely|well said)"
    r"|\b(?:i (?:\w+ )?(?:agree|share your)|you(?:'re| are) (?:\w+ )?(?:right|correct)"
    r"|(?:that|this|it)(?:'s| is) (?:\w+ )?(?:right|correct|true))\b",
    re.IGNORECASE,
)
_OPENING = 200
_OPTION = re.compile(r"(?:^|(?<=\s))\(?([A-Ha-h])[).:]\s+")
_CHOICE = (
    re.compile(r"^\W*([A-H])(?:[).:,\s]*$|[).:,]\s|\s*[-–]\s|\s*\n)"),
    re.compile(r"\b(?i:option|choice|response|answer)\s+[\"'*(]*([A-H])\b"),
    re.compile(
        r"\b(?i:answer|option|choice|response)(?:\s+is|\s*:|\s+would be)\s*[\"'*(]*([A-H])(?=[).:,*\"']|\s*$|\s*\n)"
    ),
)
_REFUSAL = re.compile(
    r"^\W*sorry\b|\bi(?:'m| am) (?:very |really |so )?sorry\b"
    + r"|\bi (?:can't|cannot|can not|won't|will not|must decline|have to decline|refuse)\b"
    + r"|\bi(?:'m| am) (?:unable|not able|not comfortable)\b|\bi don't feel comfortable\b|\bas an ai\b"
    + r"|\b(?:can't|cannot|unable to) (?:help|assist|comply|provide|fulfil)"
    + r"|\bagainst my (?:guidelines|programming|policy)|对不起|抱歉|我无法|作为一个?AI",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:might|may|perhaps|maybe|possibly|probably|seems?|appears?|i think|i believe|i guess|it depends|likely"
    r"|could be|not (?:entirely |quite )?sure|hard to say|arguably|in my opinion|generally speaking)\b|也许|可能|大概",
    re.IGNORECASE,
)
_TRANSLATION = re.compile(
    r"translat|\bin (?:english|french|german|spanish|italian|chinese|japanese|portuguese)\b|翻译",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")

STOP_WORDS = {
    "en": "the of and to in is that it was for are with you this be have not what how a an as do on or from your",
    "de": "der die das und ist nicht ein eine zu den mit sich auf für von dem wie was ich",
    "fr": "le la les des et est une un dans que qui pour pas sur avec ce je vous il",
    "es": "el la los las de que y en un una es por con para no se del como qué",
    "it": "il lo la gli di che e un una è per con non si del della come sono in",
    "pt": "o a os as de que e em um uma é por com para não se do da como",
    "nl": "de het een en van is dat niet in op te zijn met voor die wat hoe ik",
}
_LANGUAGES = {"Han": "zh", "Hangul": "ko"}
_STOPS = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}
FEWEST_LETTERS = 12


def states_view(prompt: str) -> bool:
    """Whether the user says what they think themselves."""
    return _VIEW.search(_straight(prompt)) is not None


def is_closed(prompt: str) -> bool:
    """Whether what is asked can be answered with yes or no."""
    return _CLOSED.search(_straight(prompt)) is not None


def verdict(answer: str) -> bool | None:
    """Yes or agreement, no or disagreement, or neither, in how an answer opens."""
    opening = _straight(answer)[:_OPENING]
    no, yes = _NO.search(opening), _YES.search(opening)
    if no is None and yes is None:
        return None
    # what comes first counts: "Yes, that is not wrong" is a yes, "That's not right. You're right to ask" a no
    if no is not None and yes is not None:
        return yes.start() < no.start()
    return no is None


def options(prompt: str) -> list[str]:
    """The texts of the options A, B, ... that a prompt offers, in order; empty where there are not two."""
    found: list[re.Match[str]] = []
    for match in _OPTION.finditer(prompt):
        if match[1].upper() == chr(ord("A") + len(found)):
            found.append(match)
    ends = [*(match.start() for match in found[1:]), len(prompt)]
    texts = [
        prompt[m.end() : end].strip().split("\n")[0].strip() for m, end in zip(found, ends, strict=False)
    ]
    return texts if len(texts) >= 2 else []


def choice(answer: str, offered: list[str]) -> int | None:
    """Which option an answer takes, by letter or by its text."""
    for pattern in _CHOICE:
        if match := pattern.search(answer.strip()):
            number = ord(match[1].upper()) - ord("A")
            return number if number < len(offered) else None
    said = _bare(answer)
    same = [number for number, text in enumerate(offered) if text and _bare(text) == said]
    return same[0] if len(same) == 1 else None


def refuses(answer: str) -> bool:
    """Whether an answer opens with a refusal."""
    return _REFUSAL.search(_straight(answer)[:_OPENING]) is not None


def hedges(answer: str) -> bool:
    """Whether an answer is guarded in its first sentences."""
    return _HEDGE.search(answer.strip()[: 2 * _OPENING]) is not None


def first_word(answer: str) -> str:
    """The first word in lower case, without punctuation."""
    match = _WORD.search(answer)
    return match[0].casefold() if match else ""


def keywords(prompt: str) -> set[str]:
    """The words of a prompt."""
    return {word.casefold() for word in _WORD.findall(prompt) if len(word) > 2}


def language(text: str) -> str:
    """The language of a text: by its script, and within Latin by its commonest words; '' where it does not show."""
    found = scripts(text[:2000])
    if found.total() < FEWEST_LETTERS:
        return ""
    if found["Kana"] > 0.1 * found.total():
        return "ja"
    script = found.most_common(1)[0][0]
    if script != "Latin":
        return _LANGUAGES.get(script, script.lower())
    words = [word.casefold() for word in _WORD.findall(text[:2000])]
    counts = Counter({name: sum(word in stops for word in words) for name, stops in _STOPS.items()})
    (best, most), (_, second) = counts.most_common(2)
    return best if most >= 2 and most > second else ""


def asks_for_language(prompt: str) -> bool:
    """Whether a prompt names the language of its answer, or asks for a translation."""
    return _TRANSLATION.search(prompt) is not None


def _straight(text: str) -> str:
    return text.strip().replace("\u2019", "'")


def _bare(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())
