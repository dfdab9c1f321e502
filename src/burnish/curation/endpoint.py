"""An OpenAI-compatible endpoint: chat completions with retries, a cost cap, and every answer kept.

    endpoint = Endpoint("http://localhost:8000/v1", "teacher", store=AnswerStore(folder))
    for reply in endpoint.ask_all(asks): ...

The key comes from the environment and goes into one header. It is in no file, no error and no log: what the server
says is searched for it before anybody sees it. It travels over https, or to this machine.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2 as httpx

from burnish.curation.answers import AnswerStore, Ask, NoReply, Prices, Reply
from burnish.errors import BurnishError, DataError, UsageError

KEY_VARIABLE = "OPENAI_API_KEY"
LOCAL = ("localhost", "127.0.0.1", "::1")
REFUSALS = (400, 413, 422)  # of this one request: too long, or filtered
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Manners:
    """How an endpoint is asked: requests at once, seconds that one may take, tries after the first, first pause."""

    concurrency: int = 4
    timeout: float = 120.0
    retries: int = 6
    first_wait: float = 1.0


class Endpoint:
    """A model behind `/chat/completions`; a context manager that closes its connections."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        store: AnswerStore,
        prices: Prices | None = None,
        key_variable: str = KEY_VARIABLE,
        manners: Manners | None = None,
    ) -> None:
        self.name = model
        self.place = _checked(url)
        self.store = store
        self.prices = prices or Prices()
        self.num_asked = 0
        self._manners = manners or Manners()
        self._leaving = threading.Event()
        self._key = os.environ.get(key_variable, "").strip()
        if self._key:
            _require_safe(self.place, key_variable)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # Redirects are not followed: the key goes where it is meant to go, and nowhere else.
        self._client = httpx.Client(headers=headers, timeout=self._manners.timeout, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def __repr__(self) -> str:
        return f"Endpoint({self.place!r}, {self.name!r})"

    def ask_all(self, asks: Iterator[Ask]) -> Iterator[Reply | NoReply]:
        """Answers in order, several requests at once; left early, it waits for those in flight, and keeps them."""
        waiting: deque[tuple[str, Future[Reply | NoReply]]] = deque()
        running: dict[str, Future[Reply | NoReply]] = {}  # the same thing asked twice is asked once
        pool = ThreadPoolExecutor(self._manners.concurrency)
        self._leaving.clear()
        try:
            for ask in asks:
                key = ask.key(self.place, self.name)
                if key not in running:
                    running[key] = pool.submit(self.ask, ask)
                waiting.append((key, running[key]))
                while len(waiting) >= 2 * self._manners.concurrency:
                    yield _next(waiting, running)
            while waiting:
                yield _next(waiting, running)
        finally:
            self._leaving.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def ask(self, ask: Ask) -> Reply | NoReply:
        """The kept answer, or a new one; BurnishError where the endpoint cannot be had."""
        key = ask.key(self.place, self.name)
        kept = self.store.get(key)
        return kept if kept is not None else self._ask_anew(ask, key)

    def _ask_anew(self, ask: Ask, key: str) -> Reply | NoReply:
        most = self.prices.most(ask)
        trouble, pause = "", 0.0
        for attempt in range(self._manners.retries + 1):
            if attempt:
                again = self._manners.first_wait * 2 ** (attempt - 1)
                self._leaving.wait(min(LONGEST_WAIT, max(pause, again)))
            if self._leaving.is_set():
                return NoReply(key, "interrupted", trouble)
            if not self.store.send(key, most):
                return NoReply(
                    key, "cost cap", f"${self.store.spent:.4f} of ${self.store.max_cost:.4f} spent"
                )
            response = self._post(ask, key)
            if isinstance(response, str):
                trouble = response
                continue
            if response.status_code == 200:
                return self._received(response, ask, key)
            self.store.failed(key)
            trouble = self._clean(f"HTTP {response.status_code}: {response.text[:300]}")
            if response.status_code in REFUSALS:
                return NoReply(key, "refused", trouble)
            if response.status_code not in PASSING:
                raise self._unusable(trouble)
            pause = _seconds(response.headers.get("retry-after"))
        raise BurnishError(
            f"{self.place} ({self.name}): {trouble}, {self._manners.retries + 1} times",
            rule="an endpoint answers within its retries",
            remedy="run the same command again later: what was answered is kept, and is not asked again",
        )

    def _post(self, ask: Ask, key: str) -> httpx.Response | str:
        """The response, or what went wrong on the way."""
        self.num_asked += 1
        try:
            return self._client.post(
                f"{self.place}/chat/completions",
                json=ask.body(self.name),
                headers={"Idempotency-Key": key},
            )
        except httpx.HTTPError as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                self.store.failed(key)  # nothing left this machine
            else:
                self.store.doubtful()
            return self._clean(f"{type(error).__name__}: {error}")
        except BaseException:
            self.store.doubtful()
            raise

    def _received(self, response: httpx.Response, ask: Ask, key: str) -> Reply:
        """The answer out of the response, kept."""
        try:
            body: dict[str, Any] = response.json()
            choice = body["choices"][0]
            text = choice["message"].get("content") or ""
            usage = body.get("usage") or {}
            prompt = int(usage.get("prompt_tokens", ask.most_prompt_tokens))
            completion = int(usage.get("completion_tokens", ask.max_tokens))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            self.store.doubtful()
            raise self._unusable(self._clean(f"{error!r} in {response.text[:300]}")) from None
        reply = Reply(
            key=key,
            text=self._clean(str(text)),
            finish_reason=str(choice.get("finish_reason") or "stop"),
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost=self.prices.of(prompt, completion),
            model=self._clean(str(body.get("model") or self.name)),
        )
        self.store.put(reply)
        return reply

    def _unusable(self, trouble: str) -> DataError:
        return DataError(
            f"{self.place} ({self.name}): {trouble}",
            rule="the endpoint speaks OpenAI's chat completions, knows the model, and accepts the key",
            remedy="check the URL (it ends in /v1), the model's name, and the key in the environment",
        )

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _next(
    waiting: deque[tuple[str, Future[Reply | NoReply]]], running: dict[str, Future[Reply | NoReply]]
) -> Reply | NoReply:
    key, future = waiting.popleft()
    reply = future.result()
    running.pop(key, None)
    return reply


def _checked(url: str) -> str:
    """The URL without a slash at its end; UsageError where it is none, or carries a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"--endpoint {url!r}",
            rule="an endpoint is an http or https URL, up to /v1",
            remedy="write, say, http://localhost:8000/v1",
        )
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"--endpoint {parts.scheme}://{parts.hostname}... with a user or a query in it",
            rule="a URL is written to files and logs, and holds no secret",
            remedy=f"put the key in the environment: {KEY_VARIABLE}=...",
        )
    return url.rstrip("/")


def _require_safe(url: str, variable: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in LOCAL:
        raise UsageError(
            f"{url}: ${variable} would travel in the clear",
            rule="a key is sent over https, or to this machine",
            remedy=f"use https, or unset {variable} where the endpoint needs no key",
        )


def _seconds(header: str | None) -> float:
    """A Retry-After in seconds; 0 where there is none, or where it is a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
