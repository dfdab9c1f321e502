"""IFEval's 25 verifiable instructions: does a response do what they say, as the published checkers decide?

    {"id": "length_constraints:number_words", "num_words": 300, "relation": "at least"}
    {"id": "detectable_format:title"}                          <<a title>>, wrapped in angular brackets

The reference's decisions are kept where a reader may wonder: keywords are regular expressions, `**bold**` is one
highlight, a postscript may stand anywhere. What it draws at random (an argument that is missing) is an error here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from burnish.errors import DataError
from burnish.evaluation.language import detect_language
from burnish.evaluation.sentences import count_capital_words, count_sentences, count_words

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def follows(instruction: str, response: str, arguments: Arguments) -> bool:
    """Whether a response follows one instruction; an empty response follows none."""
    check = CHECKS.get(instruction)
    if check is None:
        raise DataError(
            f"instruction {instruction!r}",
            rule=f"the instructions that can be verified are {', '.join(CHECKS)}",
            remedy="correct the id in instruction_id_list, or leave the row out",
        )
    given = {key: value for key, value in arguments.items() if value is not None}
    try:
        return bool(response.strip()) and check(response, given)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"instruction {instruction!r} with arguments {dict(given)!r}: {type(error).__name__}: {error}",
            rule="an instruction comes with the arguments that say what is asked",
            remedy="complete `kwargs` of that row",
        ) from error


def _compare(count: int, relation: str, bound: int) -> bool:
    if relation not in ("less than", "at least"):
        raise ValueError(f"relation {relation!r} is neither 'less than' nor 'at least'")
    return count < bound if relation == "less than" else count >= bound


def _pattern(keyword: str) -> str:
    """The keyword as the reference takes it, a regular expression; as it is written where it is none."""
    try:
        re.compile(keyword)
    except re.error:
        return re.escape(keyword)
    return keyword


def _keywords(text: str, given: Arguments) -> bool:
    return all(re.search(_pattern(word), text, flags=re.IGNORECASE) for word in given["keywords"])


def _keyword_frequency(text: str, given: Arguments) -> bool:
    found = re.findall(_pattern(given["keyword"].strip()), text, flags=re.IGNORECASE)
    return _compare(len(found), given["relation"], given["frequency"])


def _forbidden_words(text: str, given: Arguments) -> bool:
    words = given["forbidden_words"]
    return not any(re.search(rf"\b{_pattern(word)}\b", text, flags=re.IGNORECASE) for word in words)


def _letter_frequency(text: str, given: Arguments) -> bool:
    count = text.lower().count(given["letter"].strip().lower())
    return _compare(count, given["let_relation"], given["let_frequency"])


def _language(text: str, given: Arguments) -> bool:
    return detect_language(text) in (given["language"], None)


def _sentences(text: str, given: Arguments) -> bool:
    return _compare(count_sentences(text), given["relation"], given["num_sentences"])


def _paragraphs(text: str, given: Arguments) -> bool:
    """Paragraphs between `***`; only the first and the last piece may be empty."""
    pieces = [piece.strip() for piece in re.split(r"\s?\*\*\*\s?", text)]
    if not all(pieces[1:-1]):
        return False
    return sum(map(bool, pieces)) == int(given["num_paragraphs"])


def _words(text: str, given: Arguments) -> bool:
    return _compare(count_words(text), given["relation"], given["num_words"])


def _first_word(text: str, given: Arguments) -> bool:
    """Empty paragraphs count for the place of the n-th, and not for how many there are: so the reference has it."""
    pieces = [piece.strip() for piece in text.split("\n\n")]
    number, nth = sum(map(bool, pieces)), given["nth_paragraph"]
    if nth > number or not pieces[nth - 1]:
        return False
    word = pieces[nth - 1].split()[0].lstrip("'").lstrip('"')
    first = re.split(r"[.,?!'\"]", word)[0].lower()
    return number == int(given["num_paragraphs"]) and first == str(given["first_word"]).lower()


def _placeholders(text: str, given: Arguments) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= int(given["num_placeholders"])


def _postscript(text: str, given: Arguments) -> bool:
    marker = given["postscript_marker"].strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker) or _pattern(marker.lower()), text.lower()) is not None


def _bullets(text: str, given: Arguments) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, flags=re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, flags=re.MULTILINE)
    return len(stars) + len(dashes) == int(given["num_bullets"])


def _constrained(text: str, given: Arguments) -> bool:
    return any(option in text for option in OPTIONS)


def _highlights(text: str, given: Arguments) -> bool:
    single = [found.strip("*") for found in re.findall(r"\*[^\n\*]*\*", text)]
    double = [found[2:-2] for found in re.findall(r"\*\*[^\n\*]*\*\*", text)]
    return sum(bool(found.strip()) for found in single + double) >= int(given["num_highlights"])


def _sections(text: str, given: Arguments) -> bool:
    heading = rf"\s?{_pattern(given['section_spliter'].strip())}\s?\d+\s?"
    return len(re.findall(heading, text)) >= int(given["num_sections"])


def _json(text: str, given: Arguments) -> bool:
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str, given: Arguments) -> bool:
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str, given: Arguments) -> bool:
    pieces = [piece.strip() for piece in text.split("******")]
    there = [piece for piece in pieces if piece]
    return all(pieces[1:-1]) and len(there) == 2 and there[0] != there[1]


def _repeats_prompt(text: str, given: Arguments) -> bool:
    return text.strip().lower().startswith(given["prompt_to_repeat"].strip().lower())


def _ends_with(text: str, given: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(given["end_phrase"].strip().lower())


def _quotation(text: str, given: Arguments) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_words(text: str, given: Arguments) -> bool:
    return _compare(count_capital_words(text), given["capital_relation"], given["capital_frequency"])


def _english_capital(text: str, given: Arguments) -> bool:
    return text.isupper() and detect_language(text) in ("en", None)


def _english_lowercase(text: str, given: Arguments) -> bool:
    return text.islower() and detect_language(text) in ("en", None)


def _no_comma(text: str, given: Arguments) -> bool:
    return "," not in text


CHECKS: dict[str, Check] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats_prompt,
    "startend:end_checker": _ends_with,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}

APPROXIMATE = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""Instructions whose reference needs NLTK's trained data; here they follow rules near it (`sentences`)."""

BY_LANGUAGE = frozenset(
    {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}
)
"""Instructions that ask langdetect; a guess where it is not installed."""
