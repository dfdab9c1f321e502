"""Distillation: a teacher's answers to prompts, k samples each, and of these the ones that are good enough.

    prompt -> k requests -> answers -> cut or empty ones go -> graded -> the best one, or all above a limit -> row

    {"messages": [user, assistant], "license": "...", "provenance": {"teacher": "...", "request": "9f2c...", ...}}

What is written is a function of the prompts, the settings and the kept answers: a run that was interrupted is run
again, and asks only what it has no answer to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol

from burnish.curation.answers import Ask, NoReply, Reply, Teacher
from burnish.curation.prompts import Prompt
from burnish.curation.verdicts import VERIFIERS, grade, judge_ask
from burnish.data.reject import Record

CHUNK_PROMPTS = 64
UNSTATED = "unstated"


class Grader(Protocol):
    """Whoever puts a number on answers: a verifier (0 or 1), a judge (1 to 10), a reward model."""

    @property
    def name(self) -> str:
        """The grader, as provenance records it."""

    def grade(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float | None]:
        """A number for each answer, None where there is none to be had."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """Holds answers against the rows' own: 1.0 where they agree; None where the row has no answer."""

    how: str

    @property
    def name(self) -> str:
        """`verifier:number`."""
        return f"verifier:{self.how}"

    def grade(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float | None]:
        """1.0 or 0.0."""
        agrees = VERIFIERS[self.how]
        return [float(agrees(text, prompt.reference)) if prompt.reference else None for prompt, text in pairs]


@dataclass(frozen=True, slots=True)
class JudgeGrader:
    """Has a model give each answer a number from 1 to 10."""

    judge: Teacher

    @property
    def name(self) -> str:
        """`judge:MODEL`."""
        return f"judge:{self.judge.name}"

    def grade(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float | None]:
        """The judge's numbers."""
        asks = (judge_ask(prompt.messages, text) for prompt, text in pairs)
        return [grade(reply.text) if isinstance(reply, Reply) else None for reply in self.judge.ask_all(asks)]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a teacher is asked, and which answers are kept."""

    samples: int = 1
    temperature: float = 0.7
    max_tokens: int = 512
    seed: int = 0
    system: str = ""
    minimum: float | None = None
    keep_all: bool = False
    licence: str = UNSTATED


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one prompt: the rows it gave, and why its other answers went."""

    prompt: Prompt
    rows: tuple[Record, ...]
    lost: Counter[str] = field(default_factory=Counter)
    detail: str = ""

    @property
    def reason(self) -> str:
        """Why the prompt has no row: the commonest reason of its answers."""
        return self.lost.most_common(1)[0][0] if self.lost else "no answer"


def distil(
    prompts: Iterable[Prompt], teacher: Teacher, settings: Settings, *, grader: Grader | None = None
) -> Iterator[Made]:
    """What each prompt gave, in order."""
    prompts = iter(prompts)
    while chunk := list(islice(prompts, CHUNK_PROMPTS)):
        asks = (_ask(prompt, k, settings) for prompt in chunk for k in range(settings.samples))
        replies = list(teacher.ask_all(asks))
        yield from _made(chunk, replies, teacher, settings, grader)


def _ask(prompt: Prompt, sample: int, settings: Settings) -> Ask:
    said = prompt.messages
    if settings.system:
        said = ({"role": "system", "content": settings.system}, *(m for m in said if m["role"] != "system"))
    return Ask(said, sample, settings.temperature, settings.max_tokens, settings.seed)


def _made(
    chunk: Sequence[Prompt],
    replies: Sequence[Reply | NoReply],
    teacher: Teacher,
    settings: Settings,
    grader: Grader | None,
) -> Iterator[Made]:
    """Grade a chunk's usable answers together, then choose prompt by prompt."""
    k = settings.samples
    faults = [_fault(reply) for reply in replies]
    usable = [number for number, fault in enumerate(faults) if not fault]
    pairs = [(chunk[number // k], _text(replies[number])) for number in usable]
    grades = dict(zip(usable, grader.grade(pairs), strict=True)) if grader and pairs else {}
    for index, prompt in enumerate(chunk):
        mine = range(index * k, (index + 1) * k)
        lost = Counter(faults[number] for number in mine if faults[number])
        detail = next((r.detail for r in (replies[n] for n in mine) if isinstance(r, NoReply)), "")
        good = [number for number in mine if not faults[number]]
        if grader is not None:
            graded = [number for number in good if grades[number] is not None]
            passed = [number for number in graded if _passes(grades[number], settings, grader)]
            lost["not graded"] += len(good) - len(graded)
            lost["rejected by the grader"] += len(graded) - len(passed)
            # max keeps the first of equals, so the order of samples decides ties
            good = (
                passed if settings.keep_all else [max(passed, key=lambda n: grades[n] or 0)] if passed else []
            )
        elif not settings.keep_all:
            good = good[:1]
        rows = [_row(prompt, replies[n], n % k, teacher, settings, grader, grades.get(n)) for n in good]
        yield Made(prompt, tuple(rows), +lost, detail)


def _passes(value: float | None, settings: Settings, grader: Grader) -> bool:
    """Whether a grade is good enough: a verifier's must be 1, another's at least the minimum, if one was set."""
    minimum = 1.0 if isinstance(grader, Verifier) else settings.minimum
    return value is not None and (minimum is None or value >= minimum)


def _fault(reply: Reply | NoReply) -> str:
    """Why an answer is of no use whatever it says; '' if nothing is wrong."""
    if isinstance(reply, NoReply):
        return reply.reason
    if not reply.text.strip():
        return "empty answer"
    return "" if reply.finish_reason == "stop" else "cut answer"


def _text(reply: Reply | NoReply) -> str:
    return reply.text.strip() if isinstance(reply, Reply) else ""


def _row(
    prompt: Prompt,
    reply: Reply | NoReply,
    sample: int,
    teacher: Teacher,
    settings: Settings,
    grader: Grader | None,
    score: float | None,
) -> Record:
    """An answer as a row that says where it comes from."""
    asked: dict[str, Any] = {
        key: value
        for key, value in asdict(settings).items()
        if key in ("temperature", "max_tokens", "seed", "system")
    }
    provenance = {
        "teacher": teacher.name,
        "place": teacher.place,
        "request": reply.key,
        "prompt": str(prompt.origin),
        "prompt_license": prompt.licence or UNSTATED,
        "sample": sample,
        "samples": settings.samples,
        **asked,
    }
    if grader is not None:
        provenance |= {"grader": grader.name, "grade": score}
    return {
        "messages": [*prompt.messages, {"role": "assistant", "content": _text(reply)}],
        "license": settings.licence,
        "provenance": provenance,
    }
