"""Deduplication measured: planted repeats found, unlike rows merged, rows per second of processor time.

    python benchmarks/curation.py [--rows 100000] [--data ../shared/data] [--json]

The rows are real Alpaca and Dolly rows where the data is at hand, rows made by a word chain over them with their
lengths, and templates that differ in a name or a number (the hardest not to merge). Planted among them: copies with
other case and spacing (exact), with up to 5% of the characters changed, and with up to 5% of the words changed.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import itertools
import json
import platform
import random
import string
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from burnish.curation.dedup import THRESHOLD, Question, Repeats, find_repeats
from burnish.curation.flow import Job, sift
from burnish.curation.items import Input, read_items
from burnish.curation.texts import normal, prompt_of, response_of

MOST_EDITS = 0.05
SHARES = {"exact": 0.05, "characters": 0.10, "words": 0.05, "template": 0.05}
FOLDER = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--data", type=Path, default=FOLDER.parent / "shared" / "data")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = measure(Path(place), options)
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)


def measure(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write the rows, deduplicate them both ways, and compare with what was planted."""
    rows = make_rows(options.rows, options.data, random.Random(options.seed))
    data = place / "rows.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record, _, _ in rows))
    figures: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "date": datetime.date.today().isoformat(),
        "rows": len(rows),
        "characters_per_row": round(
            sum(len(r["instruction"]) + len(r["output"]) for r, _, _ in rows) / len(rows)
        ),
        "kinds": dict(Counter(kind for _, kind, _ in rows)),
        "threshold": options.threshold,
    }
    gc.collect()
    gc.freeze()  # the rows that are held here to compare with are no part of what a job has in memory
    for name, question in (
        ("exact", Question(threshold=1.0)),
        ("near", Question(threshold=options.threshold)),
    ):
        started, cpu = time.perf_counter(), time.process_time()
        repeats = find_repeats([Input(str(data))], question, folder=place / name, key={})
        found = time.process_time() - cpu
        sift(Job("dedup", (Input(str(data)),), place / f"{name}.jsonl"), repeats)
        whole = time.process_time() - cpu
        figures[name] = {
            "rows_per_cpu_second_finding": round(len(rows) / found),
            "rows_per_cpu_second_with_writing": round(len(rows) / whole),
            "wall_seconds": round(time.perf_counter() - started, 1),
            **compare(rows, repeats, near=name == "near"),
        }
    return figures


def compare(rows: list[tuple[dict[str, Any], str, int]], repeats: Repeats, *, near: bool) -> dict[str, Any]:
    """Planted copies found, by kind, and rows that went though they are a copy of nothing, by kind."""
    groups = defaultdict(list)
    for index, (_, _, group) in enumerate(rows):
        groups[group].append(index)
    found: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    for members in groups.values():
        # Of a planted pair one must go for the other; which of the two stands first in the file is chance.
        if len(members) == 2:
            first, second = members
            kind = next(rows[k][1] for k in members if rows[k][1] in SHARES and rows[k][1] != "template")
            planted[kind] += 1
            found[kind] += _gone_for(repeats, second) == _gone_for(repeats, first)
    wrong = [(k, o) for k, (o, _) in repeats.of.items() if rows[k][2] != rows[o][2]]
    really = sum(alike(rows[k][0], rows[o][0]) for k, o in wrong)
    kinds = {kind: count for kind, count in planted.items() if near or kind == "exact"}
    return {
        "removed": len(repeats.of),
        "planted_found": {kind: f"{found[kind]:,} of {count:,}" for kind, count in kinds.items()},
        "found_share": sum(found[kind] for kind in kinds) / max(1, sum(kinds.values())),
        "other_merges": len(wrong),
        "of_these_within_5_percent_of_characters": really,
        "false_merges": len(wrong) - really,
        "false_share_of_removed": (len(wrong) - really) / max(1, len(repeats.of)),
        "false_by_kind": dict(Counter(rows[k][1] for k, o in wrong if not alike(rows[k][0], rows[o][0]))),
        "examples": [[rows[k][0], rows[o][0]] for k, o in wrong if not alike(rows[k][0], rows[o][0])][:3],
    }


def _gone_for(repeats: Repeats, index: int) -> int:
    return repeats.of[index][0] if index in repeats.of else index


def alike(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two rows that nobody planted are near duplicates by the same rule: at most 5% of characters edited."""
    one, two = (normal(f"{row['instruction']} {row['input']} {row['output']}") for row in (first, second))
    return bool(Levenshtein.distance(one, two) <= MOST_EDITS * max(len(one), len(two)))


def make_rows(count: int, data: Path, draw: random.Random) -> list[tuple[dict[str, Any], str, int]]:
    """(record, kind, group) in random order; a copy has its original's group."""
    originals = [(record, "real") for record in real_rows(data)][: count // 2]
    words = Chain([record for record, _ in originals] or FALLBACK, draw)
    copies = {kind: int(count * share) for kind, share in SHARES.items()}
    originals += [(template(k), "template") for k in range(copies.pop("template"))]
    while len(originals) < count - sum(copies.values()):
        originals.append((words.row(), "made"))
    rows = [(record, kind, group) for group, (record, kind) in enumerate(originals)]
    chosen = iter(
        draw.sample([k for k, (_, kind) in enumerate(originals) if kind != "template"], sum(copies.values()))
    )
    for kind, number in copies.items():
        for _ in range(number):
            group = next(chosen)
            rows.append((EDITS[kind](originals[group][0], draw), kind, group))
    draw.shuffle(rows)
    return rows


def real_rows(data: Path) -> Iterator[dict[str, Any]]:
    """Alpaca's and Dolly's distinct rows."""
    seen = set()
    for name in ("alpaca/alpaca.jsonl", "dolly-3k/dolly_3k.jsonl"):
        if (data / name).exists():
            for item in read_items([Input(str(data / name))]):
                content = getattr(getattr(item, "row", None), "content", None)
                if content is not None:
                    record = {"instruction": prompt_of(content), "input": "", "output": response_of(content)}
                    text = normal(record["instruction"] + "\x1e" + record["output"])
                    if text not in seen:
                        seen.add(text)
                        yield record


class Chain:
    """Rows whose every pair of words stands in a real row, as long as real rows are."""

    def __init__(self, rows: list[dict[str, Any]], draw: random.Random) -> None:
        self._draw = draw
        self._lengths = [(len(row["instruction"].split()), len(row["output"].split())) for row in rows]
        self._next: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            words = [*row["instruction"].split(), *row["output"].split()]
            for word, following in itertools.pairwise(words):
                self._next[word].append(following)
        self._words = list(self._next)

    def row(self) -> dict[str, Any]:
        asked, said = self._draw.choice(self._lengths)
        # Three words more: two short chains of few words would else be equal by chance.
        return {"instruction": self._text(asked + 3), "input": "", "output": self._text(said + 3)}

    def _text(self, count: int) -> str:
        words = [self._draw.choice(self._words)]
        while len(words) < count:
            words.append(self._draw.choice(self._next.get(words[-1]) or self._words))
        return " ".join(words)


FALLBACK = [
    {"instruction": "Name " + " ".join(string.ascii_lowercase), "output": " ".join(string.ascii_uppercase)}
]
UNITS = ("miles", "kilograms", "litres", "acres", "degrees", "gallons", "pounds", "yards", "ounces", "feet")


def template(number: int) -> dict[str, Any]:
    """Rows that differ in a number, its double and two units: short, alike, and not repeats of each other."""
    first, second = UNITS[number % 10], UNITS[number // 10 % 10]
    value = 13 + 7919 * number % 100_003
    return {
        "instruction": f"Double {value} {first} and say it in {second}.",
        "input": "",
        "output": f"That makes {2 * value} {second}.",
    }


def repeated(record: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The same text in other case and spacing."""
    return {
        name: text.replace(" ", draw.choice(["  ", " \t", "\u00a0"])).upper() for name, text in record.items()
    }


def with_characters_changed(record: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Up to 5% of the characters replaced, left out or followed by another, at least one of them."""
    total = len(normal(record["instruction"])) + len(normal(record["output"]))
    edits = max(1, int(draw.uniform(0, MOST_EDITS) * total))
    fields = {name: list(record[name]) for name in ("instruction", "output")}
    for _ in range(edits):
        name = draw.choices(
            ["instruction", "output"], [len(record["instruction"]) + 1, len(record["output"]) + 1]
        )[0]
        characters = fields[name]
        place = draw.randrange(len(characters) + 1)
        other = draw.choice(string.ascii_lowercase)
        taken, given = draw.choice([(0, [other]), (1, []), (1, [other])])  # put in, leave out, replace
        characters[place : place + taken] = given
    return {**record, **{name: "".join(characters) for name, characters in fields.items()}}


def with_words_changed(record: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Up to 5% of the words replaced by another of the row; one character where 5% are not one word."""
    words = record["output"].split(" ")
    count = int(draw.uniform(0, MOST_EDITS) * (len(words) + len(record["instruction"].split())))
    if not count:
        return with_characters_changed(record, draw)
    for _ in range(count):
        words[draw.randrange(len(words))] = draw.choice(words)
    return {**record, "output": " ".join(words)}


EDITS = {"exact": repeated, "characters": with_characters_changed, "words": with_words_changed}


def show(figures: dict[str, Any]) -> None:
    """The figures in lines."""
    for name, value in figures.items():
        if isinstance(value, dict) and name in ("exact", "near"):
            print(f"{name}:")
            for key, figure in value.items():
                print(f"  {key:42} {figure}")
        else:
            print(f"{name:44} {value}")


if __name__ == "__main__":
    main()
