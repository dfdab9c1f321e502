"""A model on this machine as a teacher: asked like an endpoint, its answers kept in the same place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from burnish.curation.answers import AnswerStore, Ask, NoReply, Reply
from burnish.evaluation.fingerprint import fingerprint
from burnish.models.assistant import Assistant, load_assistant


class LocalTeacher:
    """Answers asks with a loaded model. An answer hangs on its ask alone, not on what else is asked beside it."""

    def __init__(self, model: str, *, store: AnswerStore) -> None:
        self.name = fingerprint(model)
        self.place = "local"
        self.store = store
        self.num_asked = 0
        self._assistant: Assistant = load_assistant(model)

    def ask_all(self, asks: Iterator[Ask]) -> Iterator[Reply | NoReply]:
        """Answers in order; greedy asks of one kind go through the model together, drawn ones one by one."""
        for (_, greedy), group in groupby(asks, key=lambda ask: (ask.max_tokens, ask.temperature == 0)):
            batch: list[Ask] = []
            for ask in group:
                batch.append(ask)
                if len(batch) == (16 if greedy else 1):
                    yield from self._answer(batch)
                    batch = []
            yield from self._answer(batch)

    def _answer(self, batch: list[Ask]) -> list[Reply | NoReply]:
        keys = [ask.key(self.place, self.name) for ask in batch]
        new = {key: ask for key, ask in zip(keys, batch, strict=True) if self.store.get(key) is None}
        if new:
            first = batch[0]
            answers = self._assistant.answer(
                [list(ask.messages) for ask in new.values()],
                max_new_tokens=first.max_tokens,
                temperature=first.temperature,
                seed=first.seed + first.sample,
            )
            self.num_asked += len(new)
            for key, answer in zip(new, answers, strict=True):
                self.store.put(
                    Reply(
                        key=key,
                        text=answer.text,
                        finish_reason=answer.finish_reason,
                        prompt_tokens=len(answer.prompt_ids),
                        completion_tokens=len(answer.completion_ids),
                        cost=0.0,
                        model=self.name,
                    )
                )
        return [reply for key in keys if (reply := self.store.get(key)) is not None]
