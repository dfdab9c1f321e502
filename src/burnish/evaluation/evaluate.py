"""One model on one set: rows shown to it, questions put to it, choices weighed; every row's marks, and the figures.

subject    a loaded model and how it is fed       open_subject("runs/a")      open_base("runs/a")
rows       demonstrations: loss of their graded tokens, and their last answer asked for
questions  rows that say how an answer is judged
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from burnish.chat.refusal import RowRefused
from burnish.curation.score import exchange
from burnish.data.ledger import Ledger
from burnish.data.prepare import fit, windows
from burnish.evaluation.answering import ask, behaviour, mark_answer
from burnish.evaluation.evaluations import SAMPLES
from burnish.evaluation.figures import Figure, Marks, summarise
from burnish.evaluation.likelihood import Seen, choice_marks, read_through, row_marks
from burnish.evaluation.questions import Question
from burnish.evaluation.row_scores import plain
from burnish.models.assistant import Answer, Assistant
from burnish.models.generate import num_positions
from burnish.models.tokenizer import ChatTokenizer
from burnish.recipe.schema import Recipe
from burnish.types import Completion, Content, Conversation, Document, Example, Origin, Row

Told = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is, and of how much."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a set is put to a model. Answers are greedy: the same model gives the same figures."""

    max_new_tokens: int = 256
    batch_size: int = 32
    generate: bool = True
    told: Told = lambda what, done, total: None


@dataclass(slots=True)
class Outcome:
    """What a set came to: each row's source, marks and, where it was asked, prompt and answer."""

    sources: list[str] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0

    def figures(self) -> dict[str, Figure]:
        """Over all rows."""
        return summarise(self.marks)

    def by_source(self) -> dict[str, dict[str, Figure]]:
        """Of each source, where there are several."""
        names = sorted(set(self.sources))
        if len(names) < 2:
            return {}
        pairs = list(zip(self.sources, self.marks, strict=True))
        return {name: summarise([marks for source, marks in pairs if source == name]) for name in names}


def show_rows(
    assistant: Assistant,
    rows: Sequence[Row],
    names: Sequence[str],
    settings: Settings,
    *,
    tokenizer: ChatTokenizer | None = None,
    recipe: Recipe | None = None,
) -> Outcome:
    """The loss of rows, fed as `recipe` trains them (with its tokenizer) or as the model itself is asked."""
    tokenizer = tokenizer or assistant.tokenizer
    outcome = Outcome([names[row.source] for row in rows])
    views = [_views(tokenizer, row, recipe, num_positions(assistant.model.config)) for row in rows]
    flat = [view for several in views for view in several]
    seen = read_through(
        assistant.model, flat, progress=lambda done, total: settings.told("rows read", done, total)
    )
    several = any(len({turn for view in one for turn in view.turns}) > 1 for one in views)
    start = 0
    for one in views:
        part = seen[start : start + len(one)]
        start += len(one)
        outcome.marks.append(row_marks(one, part, tokenizer.encoder, positions=several))
    outcome.left_out = sum(not one for one in views)
    return outcome


def _views(tokenizer: ChatTokenizer, row: Row, recipe: Recipe | None, positions: int | None) -> list[Example]:
    """The row's sequences; none where it cannot be fed exactly, or is too long."""
    if tokenizer.template is None:
        row = replace(row, content=plain(row.content))
    try:
        views = tokenizer.encoder.encode(row)
    except RowRefused:
        return []
    if recipe is not None and not isinstance(row.content, Document):
        return [fitted for fitted, _ in fit(row, views, recipe, Ledger())]
    limit = recipe.max_length if recipe is not None else positions
    if limit is None:
        return views
    if isinstance(row.content, Document):
        return [part for view in views for part in windows(view, limit)]
    return [view for view in views if len(view) <= limit]


def questions_of(rows: Sequence[Row], names: Sequence[str]) -> list[Question | None]:
    """Each row's last answer, asked for; None for plain text, and where the last answer is a tool call."""
    found: list[Question | None] = []
    for row in rows:
        pair = exchange(row.content) if _has_answer(row) else None
        tools = tuple(row.content.tools or ()) if isinstance(row.content, Conversation) else ()
        if pair is None or not pair[1].strip() or not pair[0]:
            found.append(None)
            continue
        said, expected = pair
        prompt = row.content.prompt if isinstance(row.content, Completion) else [*said]
        place = str(row.origin)
        found.append(Question(place, names[row.source], prompt, ("exact",), (expected,), tools=tools))
    return found


def _has_answer(row: Row) -> bool:
    content = row.content
    if isinstance(content, Conversation):
        return any(message["role"] == "assistant" for message in content.messages)
    return isinstance(content, Completion)


def ask_questions(assistant: Assistant, questions: Sequence[Question], settings: Settings) -> Outcome:
    """Questions put to the model, and choices weighed by likelihood."""
    outcome = Outcome([question.source for question in questions], [{} for _ in questions])
    spoken = [k for k, question in enumerate(questions) if set(question.metrics) != {"likelihood"}]
    weighed = [k for k, question in enumerate(questions) if "likelihood" in question.metrics]
    answers = ask(
        assistant,
        [questions[k] for k in spoken],
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        progress=lambda done, total: settings.told("answers", done, total),
    )
    for k, answer in zip(spoken, answers, strict=True):
        spelled = assistant.tokenizer.encoder.decode(answer.completion_ids)
        outcome.marks[k] |= mark_answer(questions[k], answer, spelled=spelled) | behaviour(answer, assistant)
        outcome.samples.append(_sample(questions[k], answer, outcome.marks[k]))
    for k, marks in zip(weighed, _weigh(assistant, [questions[k] for k in weighed], settings), strict=True):
        outcome.marks[k] |= marks
    return outcome


def judge_answers(questions: Sequence[Question], answers: Sequence[str]) -> Outcome:
    """Answers that somebody else gave, judged; how they ended is not known, so none is taken as cut short."""
    outcome = Outcome([question.source for question in questions])
    for question, text in zip(questions, answers, strict=True):
        answer = Answer(text, "stop", [], [])
        outcome.marks.append(mark_answer(question, answer))
        outcome.samples.append(_sample(question, answer, outcome.marks[-1]))
    return outcome


_ASIDE = frozenset({"stop_rate", "runaway_rate", "template_leak_rate", "answer_tokens"})


def _sample(question: Question, answer: Answer, marks: Marks) -> dict[str, Any]:
    """One row as people look at it; `correct` is None where nothing says what is right."""
    judged = [above == below for name, (above, below) in marks.items() if name not in _ASIDE]
    expected: Any = list(question.expected) or question.json
    if question.instructions:
        expected = [one.id for one in question.instructions]
    return {
        "prompt": question.text,
        "answer": answer.text,
        "expected": expected[0] if isinstance(expected, list) and len(expected) == 1 else expected,
        "correct": judged[0] if judged else None,
        "finish_reason": answer.finish_reason,
        "place": question.place,
    }


def _weigh(assistant: Assistant, questions: Sequence[Question], settings: Settings) -> Iterable[Marks]:
    """Every choice as the answer to its prompt; no marks where a choice cannot be fed exactly."""
    tokenizer = assistant.tokenizer
    views = [[_choice(tokenizer, question, choice) for choice in question.choices] for question in questions]
    flat = [view for several in views for view in several if view is not None]
    seen = iter(
        read_through(
            assistant.model, flat, progress=lambda done, total: settings.told("choices", done, total)
        )
    )
    for question, several in zip(questions, views, strict=True):
        own: list[Seen] = [next(seen) for view in several if view is not None]
        lengths = [len(choice.encode()) for choice in question.choices]
        yield choice_marks(own, lengths, question.right or 0) if len(own) == len(lengths) else {}


def _choice(tokenizer: ChatTokenizer, question: Question, choice: str) -> Example | None:
    """A choice after its prompt, its own tokens graded and no stop."""
    if tokenizer.template is None:
        # a base goes on in running text: the space before the choice is the choice's own
        glue = "" if question.text[-1:].isspace() else " "
        content: Content = Completion(question.text, glue + choice)
    else:
        asked = question.prompt
        said = [{"role": "user", "content": asked}] if isinstance(asked, str) else [*asked]
        content = Conversation(
            [*said, {"role": "assistant", "content": choice}], [*map(dict, question.tools)]
        )
    try:
        view = tokenizer.encoder.encode(Row(0, 0, Origin(question.place, 0), content))[-1]
    except RowRefused:
        return None
    stops = tokenizer.encoder.stop_ids
    weights = [0.0] * len(view)
    for k in reversed(range(len(view))):  # the last run of graded tokens is the choice
        if view.weights[k] == 0.0 and any(weights):
            break
        weights[k] = float(view.weights[k] != 0.0 and view.input_ids[k] not in stops)
    return replace(view, weights=weights)


def first_samples(outcome: Outcome) -> list[dict[str, Any]]:
    """At most twenty rows, wrong ones and right ones as they come, spread over the set."""
    step = max(1, len(outcome.samples) // SAMPLES)
    return outcome.samples[::step][:SAMPLES]
