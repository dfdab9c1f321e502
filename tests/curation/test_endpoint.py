"""An endpoint is asked once for an answer, tried again when it stumbles, held to its budget, and never told on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from burnish.curation.answers import AnswerStore, Ask, NoReply, Prices, Reply, require_prices
from burnish.curation.endpoint import Endpoint, Manners
from burnish.errors import BurnishError, DataError, UsageError
from tests.curation.stub import Stub, stub_endpoint

KEY = "sk-very-secret-0123456789"
FAST = Manners(concurrency=4, timeout=5.0, retries=3, first_wait=0.001)


def asks(number: int) -> list[Ask]:
    return [Ask(({"role": "user", "content": f"question {k}"},), max_tokens=50) for k in range(number)]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with stub_endpoint() as running:
        yield running


def texts(found: Iterator[Reply | NoReply]) -> list[str]:
    return [one.text for one in found if isinstance(one, Reply)]


def test_answers_come_in_order_and_are_asked_for_once_whatever_runs(stub: Stub, tmp_path: Path) -> None:
    for _ in range(2):
        with AnswerStore(tmp_path) as store, Endpoint(stub.url, "t", store=store, manners=FAST) as endpoint:
            found = texts(endpoint.ask_all(iter([*asks(20), *asks(20)])))
            assert found == [f"You said: question {k} [0]" for k in range(20)] * 2
    assert len(stub.paid) == 20 and set(stub.paid.values()) == {1}


def test_samples_models_and_settings_are_asked_for_apart(stub: Stub, tmp_path: Path) -> None:
    ask = Ask(({"role": "user", "content": "q"},))
    others = [
        ask,
        Ask(ask.messages, sample=1),
        Ask(ask.messages, temperature=0.5),
        Ask(ask.messages, max_tokens=9),
    ]
    keys = {one.key(place, model) for one in others for place in ("a", "b") for model in ("m", "n")}
    assert len(keys) == 16
    with AnswerStore(tmp_path) as store, Endpoint(stub.url, "t", store=store) as endpoint:
        assert len(set(texts(endpoint.ask_all(iter(others[:2]))))) == 2


def test_a_stumbling_endpoint_is_tried_again_and_refusals_cost_nothing(stub: Stub, tmp_path: Path) -> None:
    stub.faults = [(429, {"Retry-After": "0.01"}), (503, {}), (500, {})]
    prices = Prices(1.0, 1.0)
    with AnswerStore(tmp_path) as store:
        with Endpoint(stub.url, "t", store=store, manners=FAST, prices=prices) as endpoint:
            assert texts(endpoint.ask_all(iter(asks(1)))) == ["You said: question 0 [0]"]
        assert store.spent == pytest.approx(30e-6)


def test_an_endpoint_that_never_answers_is_an_error_and_what_came_before_is_kept(
    stub: Stub, tmp_path: Path
) -> None:
    with AnswerStore(tmp_path) as store, Endpoint(stub.url, "t", store=store, manners=FAST) as endpoint:
        assert texts(endpoint.ask_all(iter(asks(3))))
        stub.faults = [(503, {})] * 4
        with pytest.raises(BurnishError, match=r"HTTP 503.*4 times"):
            list(endpoint.ask_all(iter([Ask(({"role": "user", "content": "new"},))])))
        assert len(store) == 3


def test_a_prompt_that_is_refused_is_one_prompt_and_a_wrong_key_is_all(stub: Stub, tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store, Endpoint(stub.url, "t", store=store, manners=FAST) as endpoint:
        stub.faults = [(400, {})]
        found = list(endpoint.ask_all(iter(asks(1))))
        assert isinstance(found[0], NoReply) and found[0].reason == "refused"
        stub.faults = [(401, {})]
        with pytest.raises(DataError, match="HTTP 401"):
            list(endpoint.ask_all(iter(asks(1))))


def test_the_key_is_sent_and_stands_in_no_file_and_no_error(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub.answer = lambda body: f"your key is {KEY}"
    with AnswerStore(tmp_path) as store, Endpoint(stub.url, "t", store=store, manners=FAST) as endpoint:
        assert texts(endpoint.ask_all(iter(asks(2)))) == ["your key is [key]"] * 2
        assert KEY not in repr(endpoint)
        stub.faults = [(403, {})]
        with pytest.raises(DataError) as caught:
            list(endpoint.ask_all(iter([Ask(({"role": "user", "content": "more"},))])))
    assert {headers["Authorization"] for headers in stub.headers} == {f"Bearer {KEY}"}
    assert KEY not in str(caught.value) and "[key]" in str(caught.value)
    assert all(KEY.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_key_does_not_travel_in_the_clear_and_a_url_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with AnswerStore(tmp_path) as store:
        with pytest.raises(UsageError, match="in the clear"):
            Endpoint("http://far.example/v1", "t", store=store)
        for url in ("http://user:word@localhost/v1", "https://far.example/v1?key=abc"):
            with pytest.raises(UsageError) as caught:
                Endpoint(url, "t", store=store)
            assert "word" not in str(caught.value) and "abc" not in str(caught.value)


def test_the_cost_cap_is_never_passed_and_holds_across_runs(stub: Stub, tmp_path: Path) -> None:
    prices = Prices(prompt=10.0, completion=100.0)  # an answer costs 10 x 10 + 20 x 100 = 2,100 millionths
    cap = 0.03
    for _ in range(2):
        with AnswerStore(tmp_path, max_cost=cap) as store:
            with Endpoint(stub.url, "t", store=store, manners=FAST, prices=prices) as endpoint:
                found = list(endpoint.ask_all(iter(asks(40))))
            assert store.spent <= cap
    reasons = {one.reason for one in found if isinstance(one, NoReply)}
    assert reasons == {"cost cap"}
    # 5,420 millionths are reserved for each; 12 x 2,100 are spent when not one more fits
    assert sum(stub.paid.values()) == 12 and set(stub.paid.values()) == {1}


def test_a_cap_without_a_price_is_refused() -> None:
    with pytest.raises(UsageError, match="without a price"):
        require_prices(1.0, Prices())
    require_prices(None, Prices())


def test_a_torn_line_is_cut_off_and_what_was_in_flight_counts_as_paid(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        store.send("a", 0.5)
        store.put(Reply("a", "yes", "stop", 1, 1, 0.1, "m"))
        store.send("b", 0.5)
        store.send("c", 0.5)
        store.failed("c")
    with (tmp_path / "answers.jsonl").open("ab") as stream:
        stream.write(b'{"key":"d","text":"ha')
    with AnswerStore(tmp_path) as store:
        assert store.num_lost == 1 and store.spent == pytest.approx(0.6)
        kept = store.get("a")
        assert kept is not None and kept.text == "yes" and store.get("d") is None
        store.put(Reply("d", "whole", "stop", 1, 1, 0.0, "m"))
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines][-1]["text"] == "whole"


def test_two_processes_do_not_pay_into_one_folder(tmp_path: Path) -> None:
    with AnswerStore(tmp_path), pytest.raises(UsageError, match="another process"):
        AnswerStore(tmp_path)


def test_a_request_that_timed_out_may_have_been_paid_and_counts_as_paid(tmp_path: Path) -> None:
    with stub_endpoint(delay=0.2) as stub, AnswerStore(tmp_path) as store:
        impatient = Manners(timeout=0.05, retries=1, first_wait=0.001)
        ask = asks(1)[0]
        with Endpoint(stub.url, "t", store=store, manners=impatient, prices=Prices(1.0, 1.0)) as endpoint:
            with pytest.raises(BurnishError, match=r"ReadTimeout.*2 times"):
                list(endpoint.ask_all(iter([ask])))
            assert store.spent == pytest.approx(2 * Prices(1.0, 1.0).most(ask))
