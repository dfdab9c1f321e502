"""What a model does with held-out rows, one number for each row: asked, or only looked at.

exact      1 if the answer is the row's, to the character, and ended by itself
contains   1 if the row's answer stands in what was said before the model stopped, or ran on
loss       -ln p of the row's graded tokens, the end of the turn among them, on average
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from burnish.curation.score import exchange
from burnish.data.pack import pack_all
from burnish.errors import UsageError
from burnish.evaluation.match import exact_match
from burnish.models.assistant import Answer, Assistant
from burnish.models.forward import graded_nll, pack_attention, why_unpacked
from burnish.models.generate import evaluating, generate
from burnish.types import Conversation, Example, Message, Row

BATCH = 64
TOKENS_PER_PASS = 2048


def contains(answer: Answer, expected: str) -> bool:
    """Whether the expected text stands in the answer."""
    return expected.strip() in answer.text


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a row: whether more is better, whether it is a share, and how an answer is judged."""

    name: str
    higher_is_better: bool
    judge: Callable[[Answer, str], bool] | None

    @property
    def is_share(self) -> bool:
        """Whether rows count 0 or 1."""
        return self.judge is not None

    @property
    def bounds(self) -> tuple[float, float]:
        """What a plateau can be."""
        return (0.0, 1.0) if self.is_share else (0.0, float("inf"))

    def words(self, value: float, *, signed: bool = False) -> str:
        """A value or a difference as it is told: a share in points, a loss as it is."""
        number, digits = (100 * value, 1) if self.is_share else (value, 3)
        return f"{number:+.{digits}f}" if signed else f"{number:.{digits}f}"

    @property
    def unit(self) -> str:
        """What differences are counted in."""
        return "points" if self.is_share else "nats"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("exact", True, exact_match),
        Metric("contains", True, contains),
        Metric("loss", False, None),
    )
}


def metric_named(name: str) -> Metric:
    """The metric of that name; UsageError where there is none."""
    if name not in METRICS:
        raise UsageError(
            f"--metric {name}",
            rule=f"a metric is one of {', '.join(METRICS)}",
            remedy="--metric exact where there is one right wording, --metric loss where there are many",
        )
    return METRICS[name]


@dataclass(frozen=True, slots=True)
class Asked:
    """A held-out row as a question: what was said before its last answer, the tools on offer, and that answer."""

    messages: tuple[Message, ...]
    tools: list[dict[str, object]] | None
    expected: str


def questions_of(rows: Sequence[Row]) -> list[Asked]:
    """Rows as questions; UsageError for plain text, which asks nothing."""
    asked = []
    for row in rows:
        pair = exchange(row.content)
        if pair is None or not pair[0]:
            raise UsageError(
                f"{row.origin}: plain text, or an answer that nothing was said before",
                rule="`exact` and `contains` ask the row's question; plain text has none",
                remedy="--metric loss",
            )
        tools = row.content.tools if isinstance(row.content, Conversation) else None
        asked.append(Asked(pair[0], tools, pair[1]))
    return asked


def longest_answer(assistant: Assistant, asked: Sequence[Asked]) -> int:
    """How many tokens an answer may have: half as many again as the longest expected one, and eight."""
    lengths = [len(assistant.tokenizer.tokenizer(one.expected)["input_ids"]) for one in asked]
    return 8 + max(lengths) * 3 // 2


def answers(assistant: Assistant, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[Answer]:
    """Greedy answers to prompts that are ids already."""
    produced = generate(
        assistant.model, prompts, stop_ids=assistant.stop_ids, max_new_tokens=max_new_tokens, batch_size=BATCH
    )
    decode = assistant.tokenizer.decode_answer
    return [
        Answer(decode(one.completion_ids), one.finish_reason, one.prompt_ids, one.completion_ids)
        for one in produced
    ]


def outcomes(
    assistant: Assistant, rows: Sequence[Row], metric: Metric, *, max_new_tokens: int | None = None
) -> list[float]:
    """The metric of each row, in their order."""
    if metric.judge is None:
        return row_losses(assistant, rows)
    asked = questions_of(rows)
    prompts = [assistant.tokenizer.prompt_ids(list(one.messages), one.tools) for one in asked]
    limit = max_new_tokens or longest_answer(assistant, asked)
    given = answers(assistant, prompts, max_new_tokens=limit)
    return [float(metric.judge(answer, one.expected)) for answer, one in zip(given, asked, strict=True)]


def row_losses(assistant: Assistant, rows: Sequence[Row]) -> list[float]:
    """The mean -ln p over each row's graded tokens, as training encodes it; RowRefused where it cannot be encoded."""
    examples = []
    for number, row in enumerate(rows):
        views = assistant.tokenizer.encoder.encode(row)
        # `source` carries the row's number: a pack says whose each target is by its source
        examples += [Example(v.row, number, v.turns, v.input_ids, v.weights) for v in views]
    sums, counts = [0.0] * len(rows), [0] * len(rows)
    packed = why_unpacked(assistant.model) is None
    with evaluating(assistant.model), pack_attention(assistant.model, packed=packed):
        for pack in pack_all(examples, max_tokens=TOKENS_PER_PASS, max_rows=None if packed else 1):
            nll = graded_nll(assistant.model, pack, packed=packed).tolist()
            for number, surprise in zip(pack.sources.tolist(), nll, strict=True):
                sums[number] += surprise
                counts[number] += 1
    return [total / max(1, count) for total, count in zip(sums, counts, strict=True)]
