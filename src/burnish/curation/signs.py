r"""What can be seen of a text without a model: its scripts, odd characters, secrets, refusals, cut ends, repetition.

    scripts("Guten Tag, 世界")             {"Latin": 8, "Han": 2}
    odd_characters("caf\ufffd")           ["U+FFFD REPLACEMENT CHARACTER"]
    secrets("key sk-abc...")               ["API key"]

All are rules of thumb: a script is no language (English and German are both Latin), and a pattern is no proof.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

SCRIPTS = (
    ("Latin", "A-Za-z\u00c0-\u024f\u1e00-\u1eff"),
    ("Han", "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"),
    ("Kana", "\u3040-\u30ff"),
    ("Hangul", "\uac00-\ud7af\u1100-\u11ff"),
    ("Cyrillic", "\u0400-\u052f"),
    ("Greek", "\u0370-\u03ff\u1f00-\u1fff"),
    ("Arabic", "\u0600-\u06ff\u0750-\u077f"),
    ("Hebrew", "\u0590-\u05ff"),
    ("Devanagari", "\u0900-\u097f"),
    ("Thai", "\u0e00-\u0e7f"),
)
_SCRIPTS = {name: re.compile(f"[{characters}]") for name, characters in SCRIPTS}

_ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069"
    "\ue000-\uf8ff\ufeff\ufffd\U000e0000-\U000e007f\U000f0000-\U0010ffff]"
)
_MOJIBAKE = re.compile("Ã[\u0080-\u00bf]|â€[\u0080-\u00bf\u2122\u0153\u017d\u02dc]|Â[\u00a0-\u00bf]")

_SECRETS = {
    "API key": re.compile(
        r"\b(?:sk|pk|rk)-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b"
        r"|\bhf_[A-Za-z0-9]{30,}\b|\bAIza[0-9A-Za-z_-]{35}\b|\bxox[abprs]-[0-9A-Za-z-]{10,}"
    ),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"),
    "web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]{1,12}://[^\s/:@]{1,64}:[^\s/@]{3,64}@[^\s/]{3,}"),
}
_PERSONAL = {
    "e-mail address": re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}\b"),
    "telephone number": re.compile(
        r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w])"
        r"|(?<!\w)\+\d{1,3}(?:[ .-]?\d{2,4}){3,4}\b"
    ),
    "card number": re.compile(r"(?<![\d.])\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\d.])"),
    "IP address": re.compile(
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"
    ),
    "social security number": re.compile(
        r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"
    ),
}
_CONTROLS = re.compile(
    r"<\|[A-Za-z_][\w ./-]{0,40}\|>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]|<</?SYS>>"
    r"|</?(?:think|tool_call|tool_response)>|<｜[^｜\s]{1,40}｜>"
)
_REFUSAL = re.compile(
    r"^\W*(?:i(?:'m| am) (?:very |really |so )?sorry|sorry|i apologi[sz]e|unfortunately)[^.!?]{0,60}?"
    r"\b(?:can(?:'t|not)|unable|not able|won't|do(?:n't| not) have)\b"
    r"|^\W*as an? (?:ai|artificial|language|large)\b"
    r"|^\W*i (?:can't|cannot|can not|won't|will not|must decline to|am unable to|am not able to) "
    r"(?:help|assist|provide|fulfil|comply|answer|do that|generate|create|write|engage|discuss|support)"
    r"|^\W*(?:对不起|抱歉|很抱歉)|^.{0,10}作为(?:一个|一名)?(?:人工智能|AI)",
    re.IGNORECASE,
)
_ENDS_OPEN = re.compile(
    r"[,;:\-–—(\[{/&=+<]$|\b(?:the|a|an|and|or|of|to|in|with|for|is|are|that|which|by|as)$", re.IGNORECASE
)


def scripts(text: str) -> Counter[str]:
    """Letters of the text by script; letters of scripts not in the table count as `other`."""
    if text.isascii():
        return Counter({"Latin": sum(map(str.isalpha, text))})
    found = Counter({name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()})
    found["other"] = sum(map(str.isalpha, text)) - found.total()
    return +found


def main_script(text: str) -> str:
    """The script of most letters, or `none`; Japanese is Han with Kana, and is told by the Kana."""
    found = scripts(text)
    if found["Kana"] * 5 > found["Han"] and found["Kana"]:
        return "Kana"
    return found.most_common(1)[0][0] if found.total() else "none"


def odd_characters(text: str) -> list[str]:
    """Characters that text has by accident: controls, zero width, private use, and signs of a wrong encoding."""
    if text.isascii() and text.isprintable():
        return []
    found = [
        f"U+{ord(char):04X} {unicodedata.name(char, 'control')}" for char in dict.fromkeys(_ODD.findall(text))
    ]
    return [*found, *(["text decoded with a wrong encoding"] if _MOJIBAKE.search(text) else [])]


def secrets(text: str) -> list[str]:
    """Kinds of credentials that the text seems to hold."""
    return [name for name, pattern in _SECRETS.items() if pattern.search(text)]


def personal_data(text: str) -> list[str]:
    """Kinds of personal data that the text seems to hold; card numbers by their check digit."""
    found = []
    for name, pattern in _PERSONAL.items():
        matches = (match.group() for match in pattern.finditer(text))
        if any(name != "card number" or _checks(match) for match in matches):
            found.append(name)
    return found


def control_lookalikes(text: str) -> list[str]:
    """Text that a tokenizer may read as its own control tokens: `<|im_end|>`, `</s>`, `[INST]`."""
    return list(dict.fromkeys(_CONTROLS.findall(text))) if "<" in text or "[" in text else []


def refusal(text: str) -> str:
    """How the response begins, if it declines; a refusal further on is not looked for."""
    found = _REFUSAL.search(text[:300])
    return text[:60].strip() if found else ""


def cut_end(text: str) -> str:
    """How the response ends, if in the middle of something: an open code fence, a comma, an article."""
    stripped = text.rstrip()
    if sum(line.lstrip().startswith("```") for line in stripped.splitlines()) % 2:
        return "an open ``` fence"
    # Short answers end as they like: "the", to "Which article?", is whole.
    if len(stripped) < 100 or not _ENDS_OPEN.search(stripped[-20:]):
        return ""
    return f"...{stripped[-30:]}"


def repeated_share(text: str, size: int = 4) -> float:
    """The share of the text's word sequences of that size that stood in it before; 0.0 below 20 words."""
    words = text.split()
    if len(words) < 20:
        return 0.0
    pieces = [tuple(words[k : k + size]) for k in range(len(words) - size + 1)]
    return 1.0 - len(set(pieces)) / len(pieces)


def _checks(digits: Iterable[str]) -> bool:
    """Luhn's sum over a card number's digits."""
    values = [int(digit) for digit in digits if digit.isdigit()][::-1]
    doubled = [sum(divmod(2 * value, 10)) for value in values[1::2]]
    return 13 <= len(values) <= 19 and (sum(values[::2]) + sum(doubled)) % 10 == 0
