"""Values and rules in words, for errors and for the reference page.

show("hf_abcdefghijklmnopqrst")                  ->  '(a secret, not shown)'
allowed({"type": "integer", "minimum": 1}, {})   ->  'a whole number, at least 1'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SECRET = re.compile(
    r"\b(?:hf_|sk-|sk_|ghp_|gho_|github_pat_|glpat-|xox[bp]-|AKIA)[A-Za-z0-9_-]{12,}|://[^/\s:@]+:[^/\s@]+@"
)
"""Values that are keys or passwords by their look: provider prefixes, and a password inside a URL."""

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "object": "a mapping",
    "null": "null",
}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def show(value: Any) -> str:
    """A value as an error may print it: short, on one line, control characters escaped, secrets hidden."""
    text = repr(value)
    if SECRET.search(text):
        return "(a secret, not shown)"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def allowed(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a JSON schema lets through, in words."""
    if "$ref" in schema:
        return allowed(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in schema:
        parts = [allowed(part, definitions) for part in schema["anyOf"]]
        return f"{', '.join(parts[:-1])}, or {parts[-1]}"
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"a list of {allowed(schema['items'], definitions)}"
    if "properties" in schema:
        return f"a mapping with {', '.join(schema['properties'])}"
    return _scalar(schema)


def _scalar(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "")
    words = [KINDS.get(kind, "anything")]
    if kind in ("integer", "number"):
        words += [f"{phrase} {schema[key]:,}" for key, phrase in BOUNDS.items() if key in schema]
    if "pattern" in schema:
        words = ["at most 64 letters, digits, `.`, `_` or `-`, the first a letter or digit"]
    return " and ".join(words).replace(" and ", " ", 1)
