"""A traced string does what a string does, and every character it claims to have from the data is that character."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.chat.provenance import (
    OWN,
    Leaf,
    Rendered,
    Run,
    Traced,
    join,
    pieces_of,
    runs_of,
    to_json,
    without,
)

TEXT = st.text(alphabet='ab <>/\n\té😀"\\', max_size=12)
PART = st.sampled_from(["a", " ", "\n", "ab", "<", "é", ""])

OPERATIONS: dict[str, Callable[[str, str], Any]] = {
    "strip": lambda text, _: text.strip(),
    "lstrip": lambda text, part: text.lstrip(part or None),
    "rstrip": lambda text, part: text.rstrip(part or None),
    "split": lambda text, part: text.split(part or None),
    "split once": lambda text, part: text.split(part or None, 1),
    "rsplit once": lambda text, part: text.rsplit(part or None, 1),
    "splitlines": lambda text, _: text.splitlines(),
    "splitlines with ends": lambda text, _: text.splitlines(True),
    "partition": lambda text, part: text.partition(part or "x"),
    "rpartition": lambda text, part: text.rpartition(part or "x"),
    "replace": lambda text, part: text.replace(part, "--"),
    "replace once": lambda text, part: text.replace(part, "", 1),
    "slice": lambda text, _: text[1:-1],
    "backwards": lambda text, _: text[::-1],
    "last": lambda text, _: text[-1:],
    "characters": lambda text, _: list(text),
    "add": lambda text, part: text + part,
    "add before": lambda text, part: part + text,
    "times": lambda text, _: text * 3,
    "join": lambda text, part: part.join([text, text]),
    "joined by it": lambda text, part: text.join([part, part]),
    "upper": lambda text, _: text.upper(),
    "title": lambda text, _: text.title(),
    "removeprefix": lambda text, part: text.removeprefix(part),
    "removesuffix": lambda text, part: text.removesuffix(part),
    "str": lambda text, _: str(text),
}
CHANGES_CHARACTERS = ("upper", "title")


def origins_are_true(text: str, leaf: str) -> bool:
    assert sum(length for length, _, _ in pieces_of(text)) == len(text)
    return all(
        text[run.start : run.end] == leaf[run.offset : run.offset + run.end - run.start]
        for run in runs_of(text)
        if run.leaf != OWN
    )


@pytest.mark.parametrize("name", OPERATIONS)
@given(text=TEXT, part=PART)
def test_an_operation_gives_what_it_gives_on_plain_text_and_tells_true_origins(
    name: str, text: str, part: str
) -> None:
    operation = OPERATIONS[name]
    expected, got = operation(text, part), operation(Traced.of(text, leaf=0), part)
    assert got == expected
    for piece in [got] if isinstance(got, str) else got:
        assert name in CHANGES_CHARACTERS or origins_are_true(piece, text)


@given(st.lists(st.tuples(st.booleans(), TEXT), max_size=6), TEXT)
def test_joined_runs_cover_the_text_once_and_none_is_empty(
    parts: list[tuple[bool, str]], separator: str
) -> None:
    traced = [Traced.of(text, leaf=k) if known else text for k, (known, text) in enumerate(parts)]
    runs = runs_of(join(separator, traced))
    assert [run.start for run in runs[1:]] == [run.end for run in runs[:-1]]
    assert all(run.start < run.end for run in runs)
    assert sum(run.end - run.start for run in runs) == len(separator.join(text for _, text in parts))


JSON = st.recursive(
    TEXT | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def traced_copy(value: Any, leaves: list[str]) -> Any:
    if isinstance(value, str) and value:
        leaves.append(value)
        return Traced.of(value, leaf=len(leaves) - 1)
    if isinstance(value, dict):
        return {key: traced_copy(item, leaves) for key, item in value.items()}
    return [traced_copy(item, leaves) for item in value] if isinstance(value, list) else value


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
def test_json_is_the_same_to_the_byte_and_holds_every_character_of_its_strings(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    def dump(item: Any) -> str:
        return json.dumps(item, ensure_ascii=ascii_only, indent=indent)

    leaves: list[str] = []
    traced = to_json(traced_copy(value, leaves), dump)
    assert traced == dump(value)
    covered = {(run.leaf, run.offset + at) for run in runs_of(traced) for at in range(run.end - run.start)}
    assert all((k, at) in covered for k, leaf in enumerate(leaves) for at in range(len(leaf)))


def test_json_of_text_that_looks_like_a_stand_in_is_right() -> None:
    value = {"a": Traced.of("@burnish-0@", leaf=0), "b": Traced.of("x", leaf=1)}
    assert to_json(value, json.dumps) == json.dumps({"a": "@burnish-0@", "b": "x"})


def test_what_is_not_followed_becomes_the_templates_own_text() -> None:
    assert runs_of("%s!" % Traced.of("a", leaf=0)) == (Run(0, 2, OWN, 0),)  # noqa: UP031
    assert runs_of(Traced.of("straße", leaf=0).upper()) == (Run(0, 7, OWN, 0),)


def test_a_mark_goes_from_text_leaves_and_offsets() -> None:
    rendered = Rendered(
        "a<.|.b>c", (Run(0, 1, OWN, 0), Run(1, 7, 0, 1), Run(7, 8, OWN, 0)), (Leaf(0, "content", "x<.|.b>"),)
    )
    assert without(".", rendered) == Rendered(
        "a<|b>c", (Run(0, 1, OWN, 0), Run(1, 5, 0, 1), Run(5, 6, OWN, 0)), (Leaf(0, "content", "x<|b>"),)
    )
