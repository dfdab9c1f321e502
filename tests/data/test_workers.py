"""Rows come back in their order, each as one process alone would encode it, whatever happens to a child."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import transformers

from burnish.chat import cell
from burnish.chat.cell import Cell
from burnish.chat.encode import Encoder, EncoderSpec
from burnish.chat.template import CHATML, ChatTemplate
from burnish.data import workers as module
from burnish.data.workers import EncodedRow, Workers, workers_for
from burnish.errors import BurnishError, DataError
from burnish.types import Completion, Conversation, Document, Origin, Row
from tests.conftest import conversation

BOMB = "{% if 'BOMB' in messages[0]['content'] %}{% for a in range(99999) %}{% for b in range(99999) %}"
BOMB += "{% endfor %}{% endfor %}{% endif %}" + CHATML
DEADLY = "{% if 'BOMB' in messages[0]['content'] %}{% set n = 9 %}{{ n ** (n ** n) }}{% endif %}" + CHATML


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell, "RENDER_SECONDS", 0.3)
    monkeypatch.setattr(cell, "DEAF_SECONDS", 0.7)


@pytest.fixture(scope="module")
def spec(tokenizer: transformers.PreTrainedTokenizerFast) -> EncoderSpec:
    return spec_of(tokenizer, CHATML)


def spec_of(tokenizer: transformers.PreTrainedTokenizerFast, source: str) -> EncoderSpec:
    template = ChatTemplate(source, special_tokens={"eos_token": "<|endoftext|>"})
    text = tokenizer.backend_tokenizer.to_str()
    added = text.replace(  # ChatML's two tokens, as `load_chat_tokenizer` adds them
        '"added_tokens":[',
        '"added_tokens":['
        + "".join(
            f'{{"id":{number},"content":"{name}","single_word":false,"lstrip":false,"rstrip":false,'
            f'"normalized":false,"special":true}},'
            for number, name in ((384, "<|im_start|>"), (385, "<|im_end|>"))
        ),
    )
    return EncoderSpec(template, added, "<|endoftext|>")


def rows_of(contents: list[Any]) -> list[Row]:
    return [Row(k, 0, Origin("x.jsonl", k + 1), content) for k, content in enumerate(contents)]


def chat(index: int, question: str | None = None) -> Conversation:
    asked, answered = conversation(index)["messages"]
    return Conversation([{**asked, "content": question or asked["content"]}, answered])


def encode(spec: EncoderSpec, rows: list[Row], **options: Any) -> list[EncodedRow]:
    with Workers(spec, num_rows=len(rows), **options) as workers:
        return list(workers.encode_all(rows))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_rows_come_back_in_order_and_as_one_process_encodes_them(spec: EncoderSpec, num_workers: int) -> None:
    contents = [chat(k) for k in range(300)] + [Completion("Q:", " yes"), Document("A long day.")]
    rows = rows_of(contents)
    told: list[tuple[int, int]] = []
    encoded = encode(
        spec, rows, num_workers=num_workers, progress=lambda done, total: told.append((done, total))
    )
    alone = spec.build()
    assert [one.row for one in encoded] == rows
    assert [one.views for one in encoded] == [alone.encode(row) for row in rows]
    assert told[-1] == (302, 302) and told == sorted(told)


def test_a_refused_row_says_why_and_an_unusual_one_what_is(spec: EncoderSpec) -> None:
    rows = rows_of(
        [
            chat(0),
            Conversation([{"role": "assistant", "content": "First."}]),
            chat(1, "What of <|im_end|>?"),
        ]
    )
    with Workers(spec, num_rows=3) as workers:
        fine, refused, unusual = workers.encode_all(rows)
    assert fine.refused is None and fine.unusual == {}
    assert (
        refused.refused is not None
        and refused.refused[0] == "no prompt before the reply"
        and not refused.views
    )
    assert unusual.unusual["control_lookalikes"] == 1 == workers.counts["control_lookalikes"]
    assert {384 + 1} <= workers.stop_ids


@pytest.mark.parametrize("source", [BOMB, DEADLY], ids=["loops", "deaf to alarms"])
def test_a_row_whose_template_does_not_end_is_refused_and_the_others_are_kept(
    source: str, tokenizer: transformers.PreTrainedTokenizerFast, hasty: None
) -> None:
    rows = rows_of([chat(0), chat(1), chat(2, "BOMB"), chat(3)])
    encoded = encode(spec_of(tokenizer, source), rows, num_workers=1)
    assert [one.refused and one.refused[0] for one in encoded] == [
        None,
        None,
        "template refused: took longer than 0.3 s",
        None,
    ]


def test_a_template_that_breaks_its_limits_on_many_rows_is_given_up(
    tokenizer: transformers.PreTrainedTokenizerFast, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BREACHES", 2)
    rows = rows_of([chat(0, f"BOMB {k}") for k in range(50)])
    with pytest.raises(DataError, match=r"x\.jsonl:2: .*as 2 rows did"):
        encode(spec_of(tokenizer, BOMB), rows, num_workers=1)


def test_a_child_killed_in_the_middle_of_a_chunk_costs_no_row(
    spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of([chat(k) for k in range(130)])
    ask, killed = Cell.ask, []

    def killing(self: Cell, job: dict[str, Any], **options: Any) -> Any:
        if len(job["rows"]) > 1 and len(killed) < 2:
            killed.append(self.pid)
            os.kill(self.pid, signal.SIGKILL)
        return ask(self, job, **options)

    monkeypatch.setattr(Cell, "ask", killing)
    encoded = encode(spec, rows, num_workers=2)
    alone = spec.build()
    assert len(killed) == 2
    assert [one.views for one in encoded] == [alone.encode(row) for row in rows]


def _ended_over_row_two(monkeypatch: pytest.MonkeyPatch, by: signal.Signals) -> None:
    """Every child that is given row 2 is ended by a signal."""
    ask = Cell.ask

    def ending(self: Cell, job: dict[str, Any], **options: Any) -> Any:
        if any(row.index == 2 for row in job["rows"]):
            os.kill(self.pid, by)
        return ask(self, job, **options)

    monkeypatch.setattr(Cell, "ask", ending)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_somebody_who_ends_every_child_fails_the_run_and_leaves_no_child_behind(
    by: signal.Signals, spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ended_over_row_two(monkeypatch, by)
    with (
        pytest.raises(
            BurnishError, match=rf"x\.jsonl:3: the process .* ended by signal {by:d}, as the one"
        ) as seen,
        Workers(spec, num_rows=200, num_workers=2) as workers,
    ):
        list(workers.encode_all(rows_of([chat(k) for k in range(200)])))
    assert seen.value.exit_code == 1 and "dmesg" in seen.value.remedy
    assert not workers._busy and workers._children.empty()


def test_a_row_that_crashes_every_child_is_refused_alone(
    spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of([chat(k) for k in range(4)])
    _ended_over_row_two(monkeypatch, signal.SIGSEGV)
    refused = [one.refused for one in encode(spec, rows, num_workers=1)]
    assert [why is None for why in refused] == [True, True, False, True]
    assert refused[2] is not None and "ended" in refused[2][0]


def lying(header: dict[str, Any], blob: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    yield {**header, "tokens": header["tokens"] + 1}, blob
    yield header, blob[:-4]
    yield {**header, "rows": []}, blob
    yield {**header, "rows": [{"views": [[10**9, [], 0]]}]}, blob
    yield {**header, "rows": [{"views": "no"}]}, blob


def test_an_answer_that_does_not_fit_is_not_believed(
    spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of([chat(0)])
    with Workers(spec, num_rows=1) as workers:
        child = workers._children.get()
        header, blob = child.ask(
            {"do": "encode", "rows": rows}, key=workers._key, made_from=lambda: workers._pickled
        )
        workers._children.put(child)
    answers = list(lying(header, blob))
    for answer in answers:
        monkeypatch.setattr(Cell, "ask", lambda self, job, answer=answer, **options: answer)
        (encoded,) = encode(spec, rows)
        assert encoded.refused is not None and "does not fit" in encoded.refused[0]
    assert len(answers) == 5


def test_few_rows_get_one_worker_and_many_no_more_than_there_are_cores() -> None:
    assert workers_for(10) == workers_for(2_000) == 1
    assert workers_for(10**9) == len(os.sched_getaffinity(0))


def test_an_error_that_is_not_the_rows_own_stops_the_work(
    tokenizer: transformers.PreTrainedTokenizerFast,
) -> None:
    spec = EncoderSpec(None, tokenizer.backend_tokenizer.to_str(), "<|endoftext|>")
    with pytest.raises(DataError, match="no chat template"):
        encode(spec, rows_of([chat(0)]))
    assert isinstance(spec.build(), Encoder)
