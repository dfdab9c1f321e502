"""F7: files of rows with bytes changed at random. Refused with a place, dropped and counted, or kept as they are.

What is kept is compared with what the standard library reads in the same line: no text of a row may be anything else.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from burnish.data.read import read_source
from burnish.errors import BurnishError
from burnish.experiments.reliability.outcome import Outcome
from burnish.recipe.schema import DatasetSource
from burnish.types import Completion, Conversation, Document, Rejected, Row

SLOW = 2.0
LARGEST = 512 << 20
SPICE = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
]
SPICE += [
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"NaN",
    b"1e999",
    b"true",
    b"-",
    b"\xef\xbb\xbf",
    b"[" * 300,
    b'{"a":' * 300,
]
SPICE += [b"assistant", b"role", b"content", b"\t", b"<|im_end|>", b"\xc2\xa0", b"9" * 400]


def fuzz_readers(place: Path, *, seed: int, trials: int = 50_000) -> Outcome:
    """F7: one input after the other, from 40 seeds."""
    outcome = Outcome("F7", "readers: bytes changed at random", seed)
    rng = random.Random(seed)
    place.mkdir(parents=True, exist_ok=True)
    seeds = list(_seeds(rng))
    slowest = 0.0
    for trial in range(trials):
        ending, whole = seeds[trial % len(seeds)]
        path = place / f"input{ending}"
        path.write_bytes(mutate(whole, rng))
        started = time.perf_counter()
        kind, failure = read_and_judge(path)
        took = time.perf_counter() - started
        slowest = max(slowest, took)
        if failure is None and took > SLOW:
            failure = f"took {took:.1f} s"
        if failure is not None:
            kept = place / f"failure-{trial}{ending}"
            path.rename(kept)
            failure = f"{kept.name}: {failure}"
        outcome.note(f"{ending} {kind}", failure)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    outcome.margin = f"slowest {slowest:.2f} s, peak of the process {peak >> 20} MiB"
    if peak > LARGEST:
        outcome.failures.append(f"the process held {peak >> 20} MiB")
    return outcome


def _conversation(rng: random.Random, *, tools: bool) -> dict[str, Any]:
    words = ["sun", "é", "日本", "a\nb", ' "quoted" ', "<b>", "😀", "", "  spaces  ", "\u2028"]

    def text() -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(1, 6))) or "x"

    messages: list[dict[str, Any]] = [
        {"role": "user", "content": text()},
        {"role": "assistant", "content": text()},
    ]
    if tools:
        call = {
            "type": "function",
            "function": {"name": "look", "arguments": {"at": text(), "n": rng.random()}},
        }
        messages[1] = {"role": "assistant", "content": "", "tool_calls": [call]}
        messages += [{"role": "tool", "content": text()}, {"role": "assistant", "content": text()}]
    return {"messages": messages}


def _seeds(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    for number in range(40):
        rows = [_conversation(rng, tools=number % 5 == 0) for _ in range(3)]
        pairs = [{"prompt": row["messages"][0]["content"], "completion": "y"} for row in rows]
        lines = "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for row in rows).encode()
        match number % 8:
            case 0 | 1 | 2:
                yield ".jsonl", lines
            case 3:
                yield ".json", json.dumps(rows).encode()
            case 4:
                yield ".jsonl", "".join(json.dumps(pair) + "\n" for pair in pairs).encode()
            case 5:
                text = io.StringIO()
                writer = csv.DictWriter(text, ["prompt", "completion"])
                writer.writeheader()
                writer.writerows(pairs)
                yield ".csv", text.getvalue().encode()
            case 6:
                sink = pa.BufferOutputStream()
                pq.write_table(pa.Table.from_pylist(pairs), sink)
                yield ".parquet", sink.getvalue().to_pybytes()
            case 7:
                yield ".jsonl.gz", gzip.compress(lines, mtime=0)


def mutate(whole: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes flipped, cut out, doubled, or something put in that readers stumble over."""
    content = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at : at + rng.randint(1, 20)]
            case 2:
                content[at:at] = content[max(0, at - rng.randint(1, 60)) : at]
            case 3:
                content[at:at] = rng.choice(SPICE)
            case _:
                content[at : at + 1] = rng.choice(SPICE)
    return bytes(content)


def read_and_judge(path: Path) -> tuple[str, str | None]:
    """What became of a file, and what is wrong with that."""
    try:
        rows = list(read_source(DatasetSource(path=str(path)), source_index=0, first_index=0))
    except BurnishError as error:
        named = path.name in error.saw and bool(error.rule) and bool(error.remedy)
        return "refused", None if named else f"refused without a place: {error.saw}"
    except Exception as error:
        return "uncaught", f"{type(error).__name__}: {error}"
    dropped = sum(isinstance(row, Rejected) for row in rows)
    if [row.index for row in rows] != list(range(len(rows))):
        return "kept", "rows are not numbered in order"
    changed = _changed(path, [row for row in rows if isinstance(row, Row)])
    return ("kept, some dropped" if dropped else "kept"), changed


def _changed(path: Path, rows: list[Row]) -> str | None:
    """The first text of a row that does not stand in its line; of Parquet, which is compressed, nothing is asked."""
    read = _TEXTS.get("".join(path.suffixes))
    if read is None or not rows:
        return None
    texts = read(path)
    for row in rows:
        there = texts.get(row.origin.line)
        if there is None:
            return f"line {row.origin.line} was kept, and the standard library reads nothing there"
        for text in _of(row):
            if text not in there:
                return f"line {row.origin.line}: {text!r} is not what stands there"
    return None


def _of(row: Row) -> Iterator[str]:
    match row.content:
        case Conversation():
            yield from (str(m["content"]) for m in row.content.messages if isinstance(m.get("content"), str))
        case Completion():
            yield row.content.completion
        case Document():
            yield row.content.text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


class _Anywhere(dict[int, set[str]]):
    """The texts of a whole file, for files whose rows do not stand in one line each."""

    def __init__(self, texts: set[str]) -> None:
        self._texts = texts

    def get(self, line: int, default: Any = None) -> Any:
        """All of them, whatever the line."""
        return self._texts


def _of_jsonl(path: Path) -> dict[int, set[str]]:
    whole = path.read_bytes()
    if path.suffix == ".gz":
        whole = gzip.decompress(whole)
    found = {}
    for number, line in enumerate(whole.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            found[number] = {*_strings(json.loads(line)), ""}
        except (ValueError, RecursionError):
            continue
    return found


def _of_json(path: Path) -> dict[int, set[str]]:
    value = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    everything = {*_strings(value), ""}
    return _Anywhere(everything)


def _of_csv(path: Path) -> dict[int, set[str]]:
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    everything = {cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row}
    return _Anywhere({*everything, ""})


_TEXTS: dict[str, Callable[[Path], dict[int, set[str]]]] = {
    ".jsonl": _of_jsonl,
    ".jsonl.gz": _of_jsonl,
    ".json": _of_json,
    ".csv": _of_csv,
}
