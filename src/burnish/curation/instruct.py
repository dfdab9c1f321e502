"""New instructions from a few seeds, in the way of Self-Instruct: show some, ask for more, keep what is new.

    round 0   8 requests, each shows 8 seeds drawn for it      -> "1. Write a haiku about rust.\\n2. ..."
    round 1   8 requests, each shows 6 seeds and 2 new ones    -> ...
              until there are enough, or three rounds brought nothing

Draws are keyed by (seed, round, request), so a run that is repeated asks the same and is answered from what is kept.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from burnish.curation.answers import Ask, NoReply, Reply, Teacher
from burnish.curation.likeness import Seen
from burnish.curation.prompts import Prompt
from burnish.errors import DataError
from burnish.types import Origin

SHOWN, SHOWN_NEW = 8, 2
REQUESTS = 8
WANTED = 8
BARREN_ROUNDS = 3
LIKE = 0.7
FEWEST_WORDS, MOST_WORDS = 3, 150
OTHER_SENSES = ("image", "images", "picture", "photo", "graph", "video", "audio", "file", "draw", "plot")
"""Words of instructions that a text model cannot follow."""

REQUEST = """Here are {shown} tasks that people gave to an assistant:

{tasks}

Write {wanted} more tasks, as different as you can from these and from each other in subject, in verb and in form. \
Each task must make sense by itself and be answerable in text. Write one task per line, numbered from 1. \
Write nothing else."""

_NUMBERED = re.compile(r"^\s*\d+[.):]\s+(.+?)\s*$", re.MULTILINE)


@dataclass
class Inventor:
    """Asks a teacher for instructions; `lost` counts what it gave that was not taken."""

    teacher: Teacher
    seeds: Sequence[Prompt]
    seed: int = 0
    temperature: float = 1.0
    max_tokens: int = 1024
    lost: Counter[str] = field(default_factory=Counter)
    stopped_by: str = "enough"

    def invent(self, number: int) -> Iterator[Prompt]:
        """At most `number` new prompts, none like a seed or like another."""
        if len(self.seeds) < 2:
            raise DataError(
                f"{len(self.seeds)} seeds",
                rule="new tasks are asked for by showing some: at least 2, better 100",
                remedy="give a file with more seeds",
            )
        seen = Seen(LIKE)
        for prompt in self.seeds:
            seen.nearest(prompt.text)
        new: list[Prompt] = []
        turn = barren = 0
        while len(new) < number:
            before = len(new)
            for prompt in self._round(turn, new, seen):
                if len(new) < number:
                    new.append(prompt)
                    yield prompt
            turn += 1
            barren = 0 if len(new) > before else barren + 1
            if self.stopped_by != "enough" or barren == BARREN_ROUNDS:
                self.stopped_by = "nothing new" if barren == BARREN_ROUNDS else self.stopped_by
                return

    def _round(self, turn: int, new: Sequence[Prompt], seen: Seen) -> list[Prompt]:
        """One round's new prompts; what is shown in it was there before it began."""
        asks = [self._ask(turn, k, new) for k in range(REQUESTS)]
        found = []
        for reply in self.teacher.ask_all(iter(asks)):
            if isinstance(reply, NoReply):
                self.lost[reply.reason] += 1
                self.stopped_by = reply.reason if reply.reason != "refused" else self.stopped_by
                continue
            for number, text in enumerate(_tasks(reply)):
                if fault := _fault(text, seen):
                    self.lost[fault] += 1
                else:
                    origin = Origin(f"invented:{reply.key}", number + 1)
                    found.append(Prompt(({"role": "user", "content": text},), origin))
        return found

    def _ask(self, turn: int, request: int, new: Sequence[Prompt]) -> Ask:
        draw = random.Random(f"{self.seed}/{turn}/{request}")
        fresh = draw.sample(list(new), min(SHOWN_NEW, len(new)))
        old = draw.sample(list(self.seeds), min(SHOWN - len(fresh), len(self.seeds)))
        shown = [prompt.text for prompt in (*old, *fresh)]
        draw.shuffle(shown)
        tasks = "\n".join(f"{k}. {' '.join(text.split())}" for k, text in enumerate(shown, start=1))
        text = REQUEST.replace("{shown}", str(len(shown))).replace("{wanted}", str(WANTED))
        return Ask(
            ({"role": "user", "content": text.replace("{tasks}", tasks)},),
            sample=turn * REQUESTS + request,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )


def _tasks(reply: Reply) -> list[str]:
    """The numbered lines of a reply; the last one of a reply that was cut is left out."""
    found = _NUMBERED.findall(reply.text)
    return found if reply.finish_reason == "stop" else found[:-1]


def _fault(text: str, seen: Seen) -> str:
    """Why an instruction is not taken; '' where it is, and then it is seen."""
    words = text.split()
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS:
        return "too short or too long"
    if {word.strip(".,:;!?\"'()").casefold() for word in words} & set(OTHER_SENSES):
        return "not a task for text"
    return "like another" if seen.nearest(text) is not None else ""
