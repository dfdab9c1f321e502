"""Raw records become conversations by the recipe's own words; the phrasing hangs on the record alone."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from burnish.data.phrasing import phrased
from burnish.data.reject import ConversionError
from burnish.recipe.schema import DatasetSource

PROMPTS = ("{{premise}} So {{hypothesis}}?", "Is it true that {{hypothesis}}, given: {{premise}}")
RESPONSE = "{{ ['yes', 'perhaps', 'no'][label] }}"


def test_a_record_is_asked_in_one_of_the_phrasings_and_answered_by_the_field_map() -> None:
    content = phrased(PROMPTS[:1], RESPONSE)({"premise": "It rains.", "hypothesis": "it is wet", "label": 0})
    assert content.messages == [
        {"role": "user", "content": "It rains. So it is wet?"},
        {"role": "assistant", "content": "yes"},
    ]


def test_phrasings_are_used_about_equally_and_a_record_keeps_its_own() -> None:
    convert = phrased(PROMPTS, RESPONSE)
    records = [{"premise": f"P{k}.", "hypothesis": "h", "label": k % 3} for k in range(400)]
    asked = [convert(record).messages[0]["content"] for record in records]
    starts = Counter(text[0] for text in asked)
    assert min(starts["P"], starts["I"]) > 150
    again = [convert(dict(reversed(record.items()))).messages[0]["content"] for record in reversed(records)]
    assert again[::-1] == asked


@pytest.mark.parametrize(
    "record", [{"premise": "x"}, {"premise": "x", "hypothesis": "y", "label": 9}], ids=str
)
def test_a_record_without_what_the_words_need_is_refused_with_its_columns(record: dict[str, object]) -> None:
    with pytest.raises(ConversionError) as caught:
        phrased(PROMPTS, RESPONSE)(record)
    assert "premise" in caught.value.detail


def test_an_answer_that_comes_out_empty_is_refused() -> None:
    with pytest.raises(ConversionError, match="response"):
        phrased(("{{q}}",), "{{a}}")({"q": "Why?", "a": " "})


@pytest.mark.parametrize("keys", [{"prompt": "{{a"}, {"prompt": "{{a}}"}, {"response": "x"}], ids=str)
def test_broken_or_half_said_words_are_refused_when_the_recipe_is_read(keys: dict[str, str]) -> None:
    more = {"response": "x"} if keys == {"prompt": "{{a"} else {}
    with pytest.raises(ValidationError):
        DatasetSource(path="a.jsonl", **keys, **more)
