"""The group `burnish data`: its table, its answers to what is misspelt, and what it loads."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from tests.laws.test_imports import HEAVY, modules_after

from burnish.cli.data import VERBS

GROUP, VERB = ["data", "--help"], ["data", "dedup", "--help"]


@pytest.mark.parametrize("name", VERBS)
def test_every_listed_verb_is_there_and_explains_itself(burnish: Any, name: str) -> None:
    assert importlib.util.find_spec(f"burnish.cli.data.{name}"), f"{name} is listed, but has no module"
    ran = burnish("data", name, "--help")
    assert ran.code == 0 and f"burnish data {name}" in ran.out


def test_help_lists_every_verb_and_a_misspelt_one_is_answered(burnish: Any) -> None:
    listed = burnish("data", "--help")
    assert listed.code == 0
    assert all(name in listed.out for name in VERBS)
    ran = burnish("data", "dedupe")
    assert ran.code == 2 and "say `burnish data dedup`" in ran.err


def test_help_loads_nothing_heavy() -> None:
    lines = ["from burnish.__main__ import run", *(f"assert run({words}) == 0" for words in (GROUP, VERB))]
    assert not modules_after("\n".join(lines)) & set(HEAVY)


def test_a_file_that_is_not_there_ends_in_three_parts(burnish: Any, tmp_path: Any) -> None:
    ran = burnish("data", "dedup", str(tmp_path / "absent.jsonl"), "-o", str(tmp_path / "out.jsonl"))
    assert ran.code == 3
    assert "absent.jsonl" in ran.err and "rule" in ran.err and "remedy" in ran.err
