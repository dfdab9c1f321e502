"""What a data set holds, counted in one pass: chunks in any process, their counts added up in this one.

    look = Look(); for chunk, part in spread(look, chunks(read_items(inputs))): whole.add(part)

Everything found names the first place it was found at. Memory grows by 16 bytes a row, for the duplicates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from burnish.curation import signs
from burnish.curation.items import Item
from burnish.curation.texts import normal, prompt_of, response_of, texts_of
from burnish.types import Conversation, Rejected

SAMPLES = 3
"""So many places are named of each kind of find."""

REPEATS = 0.3


@dataclass
class Part:
    """The counts of some rows; `finds` is kind -> what -> count, `places` the first places of each."""

    rows: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)
    response_words: Counter[int] = field(default_factory=Counter)
    finds: dict[str, Counter[str]] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    prompts: list[bytes] = field(default_factory=list)

    def find(self, kind: str, what: str, place: str, count: int = 1) -> None:
        """Count one find, and remember the first places."""
        self.finds.setdefault(kind, Counter())[what] += count
        places = self.places.setdefault(f"{kind}: {what}", [])
        if len(places) < SAMPLES:
            places.append(place)

    def add(self, other: Part) -> None:
        """Take in the counts of the rows that follow; keys are the caller's to collect."""
        self.rows += other.rows
        for name in ("unreadable", "kinds", "roles", "turns", "scripts", "words", "response_words"):
            getattr(self, name).update(getattr(other, name))
        for kind, counts in other.finds.items():
            self.finds.setdefault(kind, Counter()).update(counts)
        for name, places in other.places.items():
            known = self.places.setdefault(name, [])
            known += places[: SAMPLES - len(known)]


@dataclass(frozen=True)
class Look:
    """Counts one chunk; picklable."""

    def __call__(self, chunk: Sequence[Item | Rejected]) -> Part:
        """The counts of the chunk's rows."""
        part = Part(rows=len(chunk))
        for item in chunk:
            if isinstance(item, Rejected):
                part.unreadable[item.reason] += 1
                part.find("unreadable", item.reason, str(item.origin))
            else:
                _count(item, part)
        return part


@dataclass
class Duplicates:
    """Repeats by normalised text: of whole rows, and of prompts whose responses may differ."""

    rows: int = 0
    prompts: int = 0
    _rows: set[bytes] = field(default_factory=set)
    _prompts: set[bytes] = field(default_factory=set)

    def add(self, part: Part) -> None:
        """Count the part's keys that were seen before."""
        for keys, seen, name in ((part.keys, self._rows, "rows"), (part.prompts, self._prompts, "prompts")):
            before = len(seen)
            seen.update(keys)
            setattr(self, name, getattr(self, name) + len(keys) - (len(seen) - before))


@dataclass
class Lengths:
    """A histogram by powers of two: bucket k holds lengths from 2^(k-1) to 2^k - 1; and what lies beyond a limit."""

    limit: int | None = None
    buckets: Counter[int] = field(default_factory=Counter)
    total: int = 0
    longest: int = 0
    over: int = 0

    def add(self, length: int, times: int = 1) -> None:
        """Count a row of that length."""
        self.buckets[length.bit_length()] += times
        self.total += length * times
        self.longest = max(self.longest, length)
        self.over += times * (self.limit is not None and length > self.limit)

    def as_dict(self) -> dict[str, Any]:
        """The histogram with bounds in words: `16-31`."""
        bounds = {
            f"{1 << (k - 1)}-{(1 << k) - 1}" if k else "0": self.buckets[k] for k in sorted(self.buckets)
        }
        limits = {} if self.limit is None else {"limit": self.limit, "over": self.over}
        return {"total": self.total, "longest": self.longest, "histogram": bounds, **limits}


def lengths_of(counts: Counter[int]) -> Lengths:
    """The histogram of lengths that were counted one by one."""
    made = Lengths()
    for length, times in counts.items():
        made.add(length, times)
    return made


def _count(item: Item, part: Part) -> None:
    content, place = item.row.content, str(item.row.origin)
    texts, response = texts_of(content), response_of(content)
    part.kinds[type(content).__name__.lower()] += 1
    if isinstance(content, Conversation):
        part.roles.update(message["role"] for message in content.messages)
        part.turns[len(content.messages)] += 1
        if content.tools:
            part.find("tools", "rows that offer tools", place)
    part.scripts[signs.main_script(response)] += 1
    part.words[sum(len(text.split()) for text in texts)] += 1
    part.response_words[len(response.split())] += 1
    part.keys.append(_key("\x1e".join(map(normal, texts))))
    if prompt := prompt_of(content):
        part.prompts.append(_key(normal(prompt)))
    _look_at(texts, response, place, part)


def _look_at(texts: list[str], response: str, place: str, part: Part) -> None:
    """Everything that a row may hold by accident."""
    joined = "\n".join(texts)
    for kind, look in (
        ("odd characters", signs.odd_characters),
        ("secrets", signs.secrets),
        ("personal data", signs.personal_data),
        ("control token look-alikes", signs.control_lookalikes),
    ):
        for what in look(joined):
            part.find(kind, what, place)
    if signs.refusal(response):
        part.find("responses", "begin by declining", place)
    if signs.cut_end(response):
        part.find("responses", "end in the middle of something", place)
    if signs.repeated_share(response) > REPEATS:
        part.find("responses", "repeat themselves", place)


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
