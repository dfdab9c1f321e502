"""Which language a text is in: langdetect's answer where it is installed, as IFEval's reference has it; else a guess.

pip install 'burnish[eval]'      brings langdetect
without it                       scripts of one language, and else the commonest short words; said beside the score
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections import Counter

SCRIPTS = {
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh-cn",
    "THAI": "th",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "MALAYALAM": "ml",
    "HEBREW": "he",
    "GREEK": "el",
}
"""Scripts that (nearly) one language writes."""

SHARED = {
    "DEVANAGARI": {"hi": "है में के की का से और को", "mr": "आहे आणि च्या मध्ये हे ते", "ne": "छ को मा र हो पनि छन्"},
    "CYRILLIC": {
        "ru": "и в не на что с это как",
        "uk": "і в не на що з це як та є",
        "bg": "и в не на че се за да са",
    },
    "ARABIC": {
        "ar": "في من على أن إلى هذا التي",
        "fa": "در از که این است به را",
        "ur": "ہے میں کے کی اور سے کو",
    },
    "LATIN": {
        "en": "the of and to in is that it for you with was this are",
        "es": "el la de que y en los se por una con las para es",
        "pt": "o a de que e do da em um para com não uma os é",
        "fr": "le la de et les des en un une que est pour dans qui",
        "de": "der die und das ist nicht mit ein eine zu den ich von",
        "it": "il di che la e un per non una sono con del della è",
        "fi": "ja on ei se että hän oli joka mutta kuin ovat",
        "vi": "và của là có một cho không được các trong",
        "pl": "i w nie na się z do to że jest jak",
        "sw": "na ya wa kwa ni katika za la kuwa hii",
    },
}
"""The commonest short words of languages that share a script."""


def has_detector() -> bool:
    """Whether langdetect is installed."""
    return importlib.util.find_spec("langdetect") is not None


def detect_language(text: str) -> str | None:
    """The language's ISO 639-1 code; None where nothing in the text says."""
    if not has_detector():
        return guess_language(text)
    import langdetect

    langdetect.DetectorFactory.seed = 0  # it draws at random, and would answer differently from run to run
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return None


def guess_language(text: str) -> str | None:
    """The language by script, then by how many of its commonest words are there."""
    scripts = Counter(unicodedata.name(char, "?").split()[0] for char in text if char.isalpha())
    if not scripts:
        return None
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts["CJK"] > 0:
        return "ja"
    script = scripts.most_common(1)[0][0]
    if script in SCRIPTS:
        return SCRIPTS[script]
    words = Counter(re.findall(r"[^\W\d_]+", text.lower(), flags=re.UNICODE) + text.lower().split())
    votes = {
        language: sum(words[word] for word in common.split())
        for language, common in SHARED.get(script, {}).items()
    }
    best = max(votes, key=lambda language: votes[language], default=None)
    return best if best is not None and votes[best] else None
