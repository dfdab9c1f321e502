"""A mixture's counts are exact, whatever the sizes, the weights and the rule for sources that run short."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from burnish.curation.mix import largest_remainder, shares
from tests.conftest import conversation, write_jsonl

SOURCES = st.lists(
    st.tuples(st.sampled_from([1, 2, 5, 99, 1000, 10**7]), st.fractions(Fraction(1, 100), 100)),
    min_size=1,
    max_size=5,
)


@given(total=st.sampled_from([0, 1, 5, 1000, 123_457]), sources=SOURCES)
def test_the_counts_add_up_and_none_is_a_whole_row_off(
    total: int, sources: list[tuple[int, Fraction]]
) -> None:
    weights = [weight for _, weight in sources]
    counts = largest_remainder(total, weights)
    assert sum(counts) == total
    assert all(abs(count - total * w / sum(weights)) < 1 for count, w in zip(counts, weights, strict=True))


@given(rows=st.none() | st.sampled_from([1, 5, 1000, 123_457]), sources=SOURCES)
def test_each_rule_keeps_its_promise(rows: int | None, sources: list[tuple[int, Fraction]]) -> None:
    sizes, weights = zip(*sources, strict=True)
    stopped = shares(sizes, weights, rows, "stop")
    assert stopped == largest_remainder(sum(stopped), weights)
    assert all(count <= size for count, size in zip(stopped, sizes, strict=True))
    if rows is not None:
        assert sum(shares(sizes, weights, rows, "repeat")) == rows
        dropped = shares(sizes, weights, rows, "drop")
        wanted = largest_remainder(rows, weights)
        assert dropped == [min(count, size) for count, size in zip(wanted, sizes, strict=True)]


def written(path: Path) -> Counter[str]:
    return Counter(json.loads(line)["messages"][0]["content"] for line in path.read_text().splitlines())


def test_the_verb_writes_the_counts_it_says(burnish: Any, tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [conversation(k) for k in range(100)])
    two = write_jsonl(tmp_path / "two.jsonl", [conversation(k) for k in range(200, 210)])
    out = tmp_path / "out.jsonl"
    ran = burnish(
        "data", "mix", f"{one}=3", f"{two}=1", "--rows", "60", "--short", "repeat", "-o", str(out), "--json"
    )
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert [source["taken"] for source in said["sources"]] == [45, 15]
    assert (said["written"], sum(written(out).values())) == (60, 60)
    assert sorted(written(out).values())[-10:] == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    first = out.read_bytes()
    words = ("data", "mix", f"{one}=3", f"{two}=1", "-o", str(out), "--json", "--overwrite")
    stopped = json.loads(burnish(*words).out)
    assert [source["taken"] for source in stopped["sources"]] == [30, 10]
    again = burnish(*words, "--rows", "60", "--short", "repeat")
    assert again.code == 0 and out.read_bytes() == first
    assert burnish(*words, "--rows", "60", "--short", "repeat", "--seed", "1").code == 0
    assert out.read_bytes() != first


def test_a_weight_that_is_none_is_a_usage_error(burnish: Any, tmp_path: Path) -> None:
    for word in ("a.jsonl=0", "a.jsonl=-1", "a.jsonl=x", "a.jsonl=1/0"):
        assert burnish("data", "mix", word, "-o", str(tmp_path / "o.jsonl")).code == 2
