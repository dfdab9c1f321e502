"""What the forgetting guard asks about: a few texts of each kind, as tokens, and what the base makes of them.

    text           pages of plain English that come with burnish (`general/text.jsonl`)
    instructions   questions and answers that come with it; only the answers are graded
    samples        what the base itself says, drawn at temperature 1 before step 0: the rise of the loss on them is an
                   estimate of KL(base || tuned) a token, and asks for no data at all
    PATH           any dataset that a recipe could train on

They are read and drawn once: RUN/probes.json holds tokens and the base's losses, so that a resumed run asks the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from burnish.chat.refusal import RowRefused
from burnish.curation.score import exchange
from burnish.data.rows import read_rows_of
from burnish.errors import DataError
from burnish.models.generate import generate, num_positions
from burnish.models.tokenizer import ChatTokenizer
from burnish.recipe.schema import DatasetSource, Probe
from burnish.types import Completion, Content, Conversation, Document, Example, Row

PROBE_TOKENS = 256
"""Longer rows are cut: a probe is asked at every evaluation, and is to be cheap."""
SAMPLE_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe's rows as tokens, each with its number as its source."""

    name: str
    budget: float
    examples: tuple[Example, ...]

    def as_dict(self) -> dict[str, Any]:
        """As probes.json has it."""
        rows = [{"ids": each.input_ids, "weights": each.weights} for each in self.examples]
        return {"name": self.name, "budget": self.budget, "rows": rows}

    @classmethod
    def of(cls, said: dict[str, Any]) -> Probed:
        """Back from probes.json."""
        examples = [
            Example(number, number, (), row["ids"], row["weights"]) for number, row in enumerate(said["rows"])
        ]
        return cls(said["name"], said["budget"], tuple(examples))


def read_probe(probe: Probe, budget: float, tokenizer: ChatTokenizer, model: Any, *, seed: int) -> Probed:
    """A probe's rows; `model` is the base still, whose samples may be asked for."""
    if probe.path == "samples":
        found = _drawn(model, tokenizer, probe.rows, seed=seed)
    else:
        found = _encoded(_source(probe), tokenizer, probe.rows, num_positions(model.config))
    if len(found) < 2:
        raise DataError(
            f"probe {probe.name or probe.path}: {len(found)} rows with something to ask",
            rule="drift is measured with an interval, which needs at least two rows",
            remedy="give a path with more rows, or leave this probe out",
        )
    numbered = tuple(replace(each, row=number, source=number) for number, each in enumerate(found))
    return Probed(probe.name or probe.path, probe.budget or budget, numbered)


def _source(probe: Probe) -> DatasetSource:
    if not probe.is_own:
        return probe.source
    return DatasetSource(path=str(files("burnish.training").joinpath("general", f"{probe.path}.jsonl")))


def _encoded(source: DatasetSource, tokenizer: ChatTokenizer, most: int, limit: int | None) -> list[Example]:
    found: list[Example] = []
    for row in read_rows_of(source, 0, 0):
        if isinstance(row, Row):
            found += _views(row, tokenizer, min(PROBE_TOKENS, limit or PROBE_TOKENS))
        if len(found) >= most:
            break
    return found[:most]


def _views(row: Row, tokenizer: ChatTokenizer, limit: int) -> Iterator[Example]:
    """A row as the base can be asked it, at most one view; what ends turns and texts is not graded."""
    # A template that came with this run is new to the base: it is asked in plain text.
    knows_template = tokenizer.template is not None and not tokenizer.new_ids
    content = row.content if knows_template else _plain(row.content)
    try:
        views = tokenizer.encoder.encode(replace(row, content=content))
    except RowRefused:
        return
    stops = set(tokenizer.stop_ids)
    ids = views[0].input_ids[:limit]
    pairs = zip(ids, views[0].weights, strict=False)
    weights = [float(weight != 0.0 and token not in stops) for token, weight in pairs]
    if any(weights):
        yield replace(views[0], input_ids=ids, weights=weights)


def _plain(content: Content) -> Content:
    """A conversation as text to continue: what was said, a blank line, the last answer."""
    pair = exchange(content) if isinstance(content, Conversation) else None
    if pair is None:
        return content
    said, answer = pair
    return Completion("\n\n".join([*(str(message["content"]) for message in said), ""]), answer)


def _drawn(model: Any, tokenizer: ChatTokenizer, rows: int, *, seed: int) -> list[Example]:
    """Texts that the base makes from nothing but the start of a text."""
    start = starting_ids(tokenizer)
    drawn = generate(
        model,
        [start] * rows,
        stop_ids=[tokenizer.encoder.eos_id],
        max_new_tokens=SAMPLE_TOKENS,
        temperature=1.0,
        seed=seed,
    )
    return [
        Example(
            0, 0, (), [*start, *each.completion_ids], [0.0] * len(start) + [1.0] * len(each.completion_ids)
        )
        for each in drawn
        if each.completion_ids
    ]


def starting_ids(tokenizer: ChatTokenizer) -> Sequence[int]:
    """What stands before a text that begins: what the tokenizer puts there, else the end of another text."""
    return tokenizer.encoder.text_prompt_ids(Document(" ")) or [tokenizer.encoder.eos_id]
