from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from burnish.errors import DataError
from burnish.marble import facts
from burnish.marble.facts import Fact, bare, fill, load_facts, load_relations


def test_there_are_over_two_thousand_facts_in_over_eight_families() -> None:
    assert len(load_facts()) >= 2000
    assert len({relation.family for relation in load_relations().values()}) >= 8


def test_an_entity_has_one_value_per_relation() -> None:
    told = Counter((fact.relation, fact.entity) for fact in load_facts())
    assert [pair for pair, times in told.items() if times > 1] == []


def test_no_cell_is_blank_or_padded() -> None:
    for fact in load_facts():
        assert fact.entity and fact.entity == fact.entity.strip()
        assert fact.value and fact.value == fact.value.strip()


def test_every_relation_is_worded_often_enough() -> None:
    for relation in load_relations().values():
        assert len(relation.statements) >= 8, relation.name
        assert len(relation.questions) >= 3, relation.name
        assert len(relation.held_out) == 2, relation.name


def test_every_wording_names_the_entity_and_statements_name_the_value() -> None:
    for relation in load_relations().values():
        for wording in (*relation.questions, *relation.held_out):
            assert "{e}" in wording.lower() and "{v}" not in wording.lower(), wording
        for wording in relation.statements:
            assert "{e}" in wording.lower() and "{v}" in wording.lower(), wording
        assert all(wording.endswith("?") for wording in relation.questions)
        assert not any(wording.endswith(" ") for wording in relation.held_out)


def test_the_article_follows_the_word_that_is_filled_in() -> None:
    eagle = Fact("young", "eagle", "eaglet")
    assert fill("A {e} looks after a {v}.", eagle) == "An eagle looks after an eaglet."
    assert fill("A {e} is heard.", Fact("x", "ukulele", "y")) == "A ukulele is heard."


def test_a_sentence_has_one_full_stop_after_an_abbreviation() -> None:
    assert fill("{E}: {v}.", Fact("capital", "the States", "D.C.")) == "The States: D.C."
    assert bare("the Hague") == "Hague"


def test_a_table_whose_row_lost_a_tab_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "towns.tsv").write_text("town\tmayor\triver\nUlm\tAda\n", encoding="utf-8")
    (tmp_path / "towns.wordings").write_text("[mayor] mayor\n[river] river\n", encoding="utf-8")
    monkeypatch.setattr(facts, "FOLDER", tmp_path)
    monkeypatch.setattr(facts, "load_relations", load_relations.__wrapped__)
    with pytest.raises(DataError, match=r"towns\.tsv:2: 1 values for 2 relations"):
        load_facts.__wrapped__()
