"""A byte-level BPE tokenizer as llama.cpp reads it: tokens by id, their kinds, merges, and the name of its splitter.

llama.cpp splits text before it merges bytes, and knows how by a name (`tokenizer.ggml.pre`). The name is derived from
the splitter that tokenizer.json spells out, and a splitter without a name is refused: a guess would cut text where
training did not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import DataError
from burnish.models.locate import read_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of token, as gguf.TokenType numbers them."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = rf"{_CONTRACTIONS}\p{{N}}{{1,3}}{_REST}"
QWEN2_SPLIT = rf"{_CONTRACTIONS}\p{{N}}{_REST}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What goes into the file's metadata; `tokens[k]` is the text of id k, up to the rows that the embedding has."""

    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]


def read_vocabulary(directory: Path, rows: int) -> Vocabulary:
    """The vocabulary of a folder's tokenizer.json; DataError where llama.cpp has no such tokenizer."""
    spelled = read_json(directory / "tokenizer.json")
    pre = splitter_name(spelled)
    by_id = {number: token for token, number in spelled["model"]["vocab"].items()}
    added = {entry["id"]: entry for entry in spelled.get("added_tokens") or []}
    tokens, kinds = [], []
    for number in range(rows):
        if number in added:
            tokens.append(added[number]["content"])
            kinds.append(CONTROL if added[number]["special"] else USER_DEFINED)
        elif number in by_id:
            tokens.append(by_id[number])
            kinds.append(NORMAL)
        else:  # a row that no token has: padding of the table
            tokens.append(f"[PAD{number}]")
            kinds.append(UNUSED)
    return Vocabulary(pre, tokens, kinds, [merge_text(pair) for pair in spelled["model"]["merges"]])


def merge_text(pair: str | list[str]) -> str:
    """A merge as llama.cpp spells it: two pieces and a space; a space inside a piece as byte-level BPE has it."""
    return pair if isinstance(pair, str) else " ".join(part.replace(" ", "Ġ") for part in pair)


def splitter_name(spelled: dict[str, Any]) -> str:
    """llama.cpp's name for the way this tokenizer splits text."""
    model, normalizer = spelled["model"], spelled.get("normalizer")
    parts = _parts(spelled.get("pre_tokenizer"))
    if model.get("type") == "BPE" and not model.get("byte_fallback") and _is_byte_level(parts):
        for name, fits in SPLITTERS.items():
            if fits(parts[:-1], parts[-1], normalizer, bool(model.get("ignore_merges"))):
                return name
    raise DataError(
        f"tokenizer.json: {model.get('type')} with pre_tokenizer "
        f"{json.dumps(spelled.get('pre_tokenizer'))[:300]}, normalizer {json.dumps(normalizer)}",
        rule=f"burnish writes GGUF for byte-level BPE that splits as {', '.join(SPLITTERS)} do in llama.cpp",
        remedy="export --to hf, and convert with llama.cpp: python convert_hf_to_gguf.py DIR --outtype f16",
    )


def _parts(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, of which a sequence has several."""
    if pre_tokenizer is None:
        return []
    steps: list[dict[str, Any]] = (
        pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    )
    return steps


def _is_byte_level(parts: list[dict[str, Any]]) -> bool:
    last = parts[-1] if parts else {}
    return last.get("type") == "ByteLevel" and not last.get("add_prefix_space")


def _splits_by(steps: list[dict[str, Any]], pattern: str) -> bool:
    """Whether the one step before the bytes isolates what a regular expression finds."""
    if len(steps) != 1 or steps[0]["type"] != "Split" or steps[0].get("invert"):
        return False
    return bool(steps[0]["behavior"] == "Isolated" and steps[0]["pattern"] == {"Regex": pattern})


def _digits_apart(steps: list[dict[str, Any]]) -> bool:
    return len(steps) == 1 and steps[0]["type"] == "Digits" and bool(steps[0].get("individual_digits"))


Fits = Callable[[list[dict[str, Any]], dict[str, Any], Any, bool], bool]

# steps before the bytes, the byte step, the normalizer, ignore_merges
SPLITTERS: dict[str, Fits] = {
    "gpt-2": lambda steps, last, normalizer, ignore: (
        not steps and last.get("use_regex", True) and normalizer is None and not ignore
    ),
    "smollm": lambda steps, last, normalizer, ignore: (
        _digits_apart(steps) and last.get("use_regex", True) and normalizer is None and not ignore
    ),
    "llama-bpe": lambda steps, last, normalizer, ignore: (
        _splits_by(steps, LLAMA3_SPLIT) and not last.get("use_regex", True) and normalizer is None and ignore
    ),
    # llama.cpp does not normalise to NFC, its own converter of Qwen included: text that is not in NFC differs.
    "qwen2": lambda steps, last, normalizer, ignore: (
        _splits_by(steps, QWEN2_SPLIT)
        and not last.get("use_regex", True)
        and normalizer in (None, {"type": "NFC"})
        and not ignore
    ),
}
