"""Raw records of a task put into words: a field map, and several phrasings of one instruction.

    prompt:                                                     {"premise": "It rains.", "hypothesis": "It is wet.",
      - "{{premise}} Does it follow that {{hypothesis}}?"        "label": 0}
      - "Is this true after '{{premise}}': {{hypothesis}}"      -> user: It rains. Does it follow that It is wet.?
    response: "{{ ['yes', 'perhaps', 'no'][label] }}"              assistant: yes

Which phrasing a record gets follows from what it says, so it is the same in every process, order and run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from burnish.data.reject import ConversionError, Reason, Record, show
from burnish.types import Conversation


def phrased(prompts: Sequence[str], response: str) -> Callable[[Record], Conversation]:
    """What makes a conversation of a record: one of the prompts asked, the response answered."""
    # The texts are the user's own, as the recipe is; the sandbox keeps a record's values from being called.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    asks = [environment.from_string(prompt) for prompt in prompts]
    answer = environment.from_string(response)

    def convert(record: Record) -> Conversation:
        chosen = int.from_bytes(_digest(record)) % len(asks)
        texts = [_rendered(template, record) for template in (asks[chosen], answer)]
        for name, text in zip(("prompt", "response"), texts, strict=True):
            if not text.strip():
                raise ConversionError(Reason.EMPTY_REPLY, f"{name} of the recipe comes out as {text!r}")
        roles = ("user", "assistant")
        return Conversation(
            [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        )

    return convert


def _rendered(template: Any, record: Record) -> str:
    try:
        return str(template.render(record))
    except TemplateError as error:
        detail = f"{error.message}; the columns are {show(list(record))}"
        raise ConversionError(Reason.MISSING_FIELD, detail) from None
    except Exception as error:
        # A filter meets a value that it was not written for: `{{ answer[0] }}` of a record without answers.
        raise ConversionError(Reason.WRONG_FORMAT, f"the recipe's phrasing: {error}") from None


def _digest(record: Record) -> bytes:
    written = json.dumps(record, sort_keys=True, default=str)
    return blake2b(written.encode("utf-8", "surrogatepass"), digest_size=8).digest()
