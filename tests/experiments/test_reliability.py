"""The campaigns in their reduced forms, and that each of them sees a defect that is planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from burnish.chat.encode import Encoder
from burnish.checkpoint import files
from burnish.experiments.reliability import (
    artifacts,
    bombs,
    conversations,
    covering,
    cuts,
    kills,
    mutants,
    readers,
    reference,
    saves,
    soak,
)
from burnish.experiments.reliability.__main__ import HEAD, write_down
from burnish.experiments.reliability.covering import Covering
from burnish.experiments.reliability.equivalent import EQUIVALENT
from burnish.experiments.reliability.outcome import Outcome, upper_bound
from burnish.types import Conversation, Example, Row


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    assert upper_bound(0, 200) == pytest.approx(1 - 0.05 ** (1 / 200), rel=1e-9)
    assert upper_bound(1, 20) == pytest.approx(0.2161, abs=1e-4)
    assert upper_bound(3, 3) == upper_bound(0, 0) == 1.0


def test_every_kind_of_damage_is_detected_and_one_that_is_not_checked_for_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saves.damage(tmp_path / "a", seed=1, trials=40).failures == []
    monkeypatch.setattr(files, "_require_hash", lambda directory, name, entry, sha256: None)
    assert saves.damage(tmp_path / "b", seed=1, trials=40).failures


def test_readers_keep_refuse_or_drop_and_a_changed_text_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LARGEST", 1 << 40)  # this process holds the other tests' torch
    assert readers.fuzz_readers(tmp_path, seed=1, trials=400).failures == []
    whole = readers._of
    monkeypatch.setattr(readers, "_of", lambda row: (text + "!" for text in whole(row)))
    assert readers.fuzz_readers(tmp_path, seed=1, trials=40).failures


def test_our_arithmetic_is_the_reference_s_and_a_wrong_formula_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reference.differential(tmp_path, seed=1, trials=50).failures == []
    monkeypatch.setattr(reference, "head_reference", lambda *a, **k: (1.0, a[0], a[1]))
    assert len(reference.differential(tmp_path, seed=1, trials=5).failures) == 1


def test_a_line_of_the_table_takes_the_place_of_the_campaign_s_last_one(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{HEAD}\n|---|\n\nafter\n")
    for trials in (5, 500):
        for code in ("F10", "F5"):
            write_down(Outcome(code, "x", 1, trials=trials), page)
    lines = page.read_text().splitlines()
    rows = [line.split("|") for line in lines if line.startswith("| F")]
    assert [(row[1].strip(), row[3].strip()) for row in rows] == [("F5", "500"), ("F10", "500")]
    assert lines[0] == "before" and lines[-1] == "after"


@pytest.mark.slow
def test_f1_in_small(tmp_path: Path) -> None:
    assert kills.kills(tmp_path, seed=3, trials=12).failures == []


@pytest.mark.slow
def test_f2_and_f4(tmp_path: Path) -> None:
    assert saves.fault_points(tmp_path / "a", seed=1).failures == []
    assert saves.disk_faults(tmp_path / "b", seed=1, writes=12).failures == []


@pytest.mark.slow
def test_f3_in_small(tmp_path: Path) -> None:
    assert kills.signals(tmp_path, seed=3, trials=4).failures == []


@pytest.mark.slow
def test_f6_in_small(tmp_path: Path) -> None:
    assert kills.company(tmp_path, seed=3, trials=2).failures == []


@pytest.mark.slow
def test_f9_in_small_and_it_sees_planted_defects(tmp_path: Path) -> None:
    assert cuts.cut_invariance(tmp_path / "a", seed=1, trials=30).failures == []
    assert all(apart > 100 * cuts.MOST for _, apart in cuts.planted(tmp_path / "b", seed=1))


@pytest.mark.slow
def test_f12_in_small(tmp_path: Path) -> None:
    assert artifacts.mutate_artifacts(tmp_path, seed=1, trials=60).failures == []


def test_seconds_in_which_a_process_was_stopped_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.0, 100.0])
    monkeypatch.setattr(bombs, "time", SimpleNamespace(monotonic=lambda: next(told)))
    lived = bombs.Lived()
    lived._done.set()  # one tick, and it ends
    lived._count()
    assert lived.seconds == 4 * bombs.Lived.TICK


def test_a_run_that_holds_more_and_more_is_seen() -> None:
    steady = [soak.Held(20, 5, 9, 1), soak.Held(21, 4, 8, 1), soak.Held(20, 5, 9, 1)] * 4
    assert soak.grown(steady) is None
    leaking = [soak.Held(20 + life, 5, 9, 1 + life // 6) for life in range(12)]
    assert soak.grown(leaking) == "files: 23 -> 31; megabytes_on_disk: 1 -> 2"
    assert soak.most_of(leaking) == soak.Held(31, 5, 9, 2) and soak.grown([]) is None


@pytest.mark.slow
def test_f16_in_small(tmp_path: Path) -> None:
    assert soak.soak(tmp_path, seed=3, trials=3).failures == []


def test_f11_in_small_and_a_render_without_limits_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bombs.bombs(tmp_path, seed=1, trials=15).failures == []
    monkeypatch.setattr(bombs, "MOST_SECONDS", 0.0)
    assert len(bombs.bombs(tmp_path, seed=1, trials=2).failures) == 2


def test_what_a_template_reaches_for_is_in_its_way_on_purpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / bombs.CANARY).touch()
    assert bombs.bombs(tmp_path, seed=1, trials=1).failures == ["code of a template was run"]


@pytest.mark.slow
@pytest.mark.skipif(not conversations.SHARED.exists(), reason="the template is in ../shared")
def test_a_tag_that_the_prompt_ends_with_is_no_missing_reply_and_any_other_word_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The five rows of F8 at 20,000."""
    source = conversations.templates()["openinstruct__olmo_thinker"]
    encoder = conversations._encoder(source, conversations.backends()["joining"])
    asked = {"role": "user", "content": "b c"}
    tag = Conversation([asked, {"role": "assistant", "content": "<think>"}])
    assert conversations._broken(encoder, tag) is None
    monkeypatch.setattr(conversations, "OPENING", "another tag")
    assert conversations._broken(encoder, tag) == "message 1: the reply is not in what is graded"


@pytest.mark.slow
def test_f8_in_small_and_a_mask_that_is_one_off_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conversations.random_conversations(tmp_path, seed=1, trials=60).failures == []
    whole = Encoder.encode

    def one_off(self: Encoder, row: Row) -> list[Example]:
        return [replace(one, weights=[0.0, *one.weights[:-1]]) for one in whole(self, row)]

    monkeypatch.setattr(Encoder, "encode", one_off)
    monkeypatch.setattr(conversations, "verify", lambda *_: [])  # the campaign's own look is enough
    found = conversations.random_conversations(tmp_path, seed=1, trials=60)
    assert len(found.failures) == found.kinds["graded"] > 10


def test_a_mutant_is_shown_to_the_tests_that_reach_it_and_every_excuse_is_of_a_mutant_that_exists() -> None:
    reached = Covering(
        {"a": 2.0, "b": 1.0, "c": 0.5}, {"a": frozenset({1, 2}), "b": frozenset({2}), "c": frozenset()}
    )
    assert (
        reached.of((2, 3)) == ["b", "a"] and reached.of((1,)) == ["a"] and reached.of((9,)) == ["c", "b", "a"]
    )
    source = (
        "LIMIT = 4\n\n\ndef f(x: int) -> int:\n    if x < LIMIT and x:\n        return x + 1\n    return 0\n"
    )
    said = {mutant.said: mutant for mutant in mutants.mutants(source)}
    assert said["f: x < LIMIT -> x <= LIMIT"].lines == (5,)
    assert "return x + 2" in said["f: 1 -> 2"].source and said["module: 4 -> 5"].lines == (1,)
    for name, spared in EQUIVALENT.items():
        assert not spared.keys() - {mutant.said for mutant in mutants.mutants(mutants._source(name))}, name


@pytest.mark.slow
def test_f15_in_small_and_a_mutant_that_changes_nothing_survives(tmp_path: Path) -> None:
    outcome = mutants.mutate_own(tmp_path, seed=1, trials=12, kept=tmp_path / "kept.jsonl")
    assert len(outcome.failures) <= 2
    name, root = "burnish.checkpoint.tensors", mutants.PACKAGE.parents[1]
    found = covering.find_covering(mutants._path(name), mutants.MODULES[name], root, tmp_path)
    same = mutants.Mutant("nothing", (40,), mutants._source(name))
    assert not mutants._is_killed(name, same, found, root, tmp_path)
