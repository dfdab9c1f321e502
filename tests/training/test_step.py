"""One update and one evaluation, number by number: each is what the packs themselves come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from burnish.data.pack import Pack
from burnish.errors import Diverged
from burnish.models.forward import Forward, pack_attention
from burnish.optim.masters import Masters
from burnish.parallel.ranks import ALONE, Ranks
from burnish.training import step as step_module
from burnish.training.run import prepare
from burnish.training.session import Session
from burnish.training.shares import Share, stream
from burnish.training.step import Abandoned, SourceSums, evaluate, take_step
from tests.conftest import conversation, write_jsonl
from tests.training.test_run import recipe

ModelDirectory = Callable[[str], Path]


@pytest.fixture
def session(model_directory: ModelDirectory, tmp_path: Path) -> Session:
    """Two sources, dropout, two rows a pass; nothing is moved at the first update's rate by accident."""
    rows = [conversation(index) for index in range(30)]
    files = [write_jsonl(tmp_path / "a.jsonl", rows[:18]), write_jsonl(tmp_path / "b.jsonl", rows[18:])]
    keys = {
        "micro_batch_size": 2,
        "val_set_size": 6,
        "adapter": "lora",
        "lora_dropout": 0.3,
        "warmup_steps": 2,
    }
    asked = recipe(
        model_directory("llama"), None, tmp_path, datasets=list(map(str, files)), num_epochs=2, **keys
    )
    return prepare(asked.recipe)


def grades_of(session: Session, packs: list[Pack], *, seed: int) -> tuple[float, dict[int, list[float]]]:
    """sum(weight * nll) over packs, and -ln p of each source's targets, with the dropout of one update."""
    total, by_source = 0.0, {0: [], 1: []}
    with pack_attention(session.model, packed=session.forward.packed):
        session.forward.loss(packs[0])  # the first pass of all tries its way, and draws for that
        torch.manual_seed(seed)
        for pack in packs:
            part, nll = session.forward.loss(pack)
            total += float(part)
            for source, value in zip(pack.sources.tolist(), nll.tolist(), strict=True):
                by_source[source].append(value)
    return total, by_source


def test_an_update_says_what_its_packs_come_to(session: Session) -> None:
    for done in (0, 1):
        packs = session._packs_of(done)
        assert len(packs) > 2
        session.model.train()
        total, by_source = grades_of(session, packs, seed=session.recipe.seed * 1_000_003 + done)
        before = {name: p.detach().clone() for name, p in session.masters.parameters.items()}
        session.state.step = done
        found = take_step(session)
        weight = sum(float(pack.weights.sum()) for pack in packs)
        assert found.step == session.state.step == done + 1
        assert found.loss == session.state.train_loss == pytest.approx(total / weight, rel=1e-6)
        assert found.graded_tokens == weight and found.tokens == sum(len(pack) for pack in packs)
        assert found.source_loss == pytest.approx({k: np.mean(v) for k, v in by_source.items()}, rel=1e-5)
        assert found.source_tokens == {k: len(v) for k, v in by_source.items()}
        assert found.learning_rate == session.schedule.rate(done) == 1e-3 * (done + 1) / 2
        assert found.epoch == session.plan.epoch_of(done + 1) and found.num_steps == session.plan.num_steps
        assert 0 < found.seconds < 60 and found.memory_bytes > 0 and found.grad_norm > 0
        moved = [not torch.equal(before[name], p) for name, p in session.masters.parameters.items()]
        assert any(moved)
        assert all(p.grad is None or not p.grad.any() for p in session.masters.parameters.values())
    counted = [session._packs_of(done) for done in (0, 1)]
    assert session.state.tokens == sum(len(pack) for packs in counted for pack in packs)
    assert session.state.graded_tokens == sum(len(pack.targets) for packs in counted for pack in packs)


def test_the_gradient_is_that_of_the_whole_batch_divided_once(session: Session) -> None:
    packs = session._packs_of(0)
    session.model.train()
    with pack_attention(session.model, packed=session.forward.packed):
        session.forward.loss(packs[0])
        for number, pack in enumerate(packs):
            torch.manual_seed(stream(session.recipe.seed, 0, Share(number, pack)))
            session.forward.loss(pack)[0].backward()
    over = sum(float(pack.weights.sum()) for pack in packs)
    grads = [p.grad / over for p in session.model.parameters() if p.grad is not None]
    norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])))
    session.masters.zero_grad()
    assert take_step(session).grad_norm == pytest.approx(norm, rel=1e-5)


class Paired(Ranks):
    """Two ranks of which this one has all the packs; the sums that it asked for are counted."""

    __slots__ = ()
    asked: ClassVar[list[int]] = []

    @property
    def size(self) -> int:
        return 2

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.asked.append(values.numel())
        return values


@pytest.mark.parametrize("ranks", [ALONE, Paired()], ids=["alone", "paired"])
def test_gradients_are_gathered_once_an_update_where_there_are_several_ranks(
    ranks: Ranks, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[object] = []
    monkeypatch.setattr(Masters, "gather", lambda self, total: gathered.append(total))
    of_all: list[int] = []
    whole = step_module._of_all_ranks
    monkeypatch.setattr(step_module, "_of_all_ranks", lambda *a: of_all.append(1) or whole(*a))
    Paired.asked.clear()
    session.ranks = ranks
    packs = session._packs_of(0)
    session.model.train()
    total = 0.0
    with torch.no_grad(), pack_attention(session.model, packed=session.forward.packed):
        session.forward.loss(packs[0])
        for number, pack in enumerate(packs):
            torch.manual_seed(stream(session.recipe.seed, 0, Share(number, pack)))
            total += float(session.forward.loss(pack)[0])
    found = take_step(session)
    assert found.loss == pytest.approx(total / sum(pack.weight for pack in packs), rel=1e-5)
    assert gathered == [] if ranks is ALONE else gathered == [ranks.sum]
    sources = len({int(one) for pack in packs for one in pack.sources})
    assert Paired.asked.count(2 + sources) == (ranks is not ALONE)
    assert len(of_all) == (ranks is not ALONE) and found.kl_to_base is None


def test_an_update_asks_between_its_packs_and_an_evaluation_before_each(session: Session) -> None:
    asked: list[int] = []
    take_step(session, interrupted=lambda: bool(asked.append(1)))
    assert len(asked) == len(session._packs_of(0)) - 1 > 0
    asked.clear()
    evaluate(session, interrupted=lambda: bool(asked.append(1)))
    assert len(asked) == len(session.held_out) > 0


def test_only_the_first_update_is_audited(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    whole = step_module.audit
    monkeypatch.setattr(step_module, "audit", lambda *a: seen.append(session.state.step) or whole(*a))
    for _ in range(3):
        take_step(session)
    assert seen == [0] and session.audit is not None


def test_an_update_is_given_up_between_two_packs_and_leaves_nothing_behind(session: Session) -> None:
    asked: list[int] = []

    def interrupted() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(Abandoned):
        take_step(session, interrupted=interrupted)
    assert len(asked) == 2 and session.state.step == 0 and session.state.tokens == 0
    assert all(p.grad is None or not p.grad.any() for p in session.model.parameters())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_neither_a_loss_nor_a_gradient_may_be_infinite_and_eight_rows_are_named(
    session: Session, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Forward.loss

    def loss(self: Forward, pack: Pack) -> Any:
        summed, nll = whole(self, pack)
        if what == "loss":
            return summed + float("inf"), nll
        summed.register_hook(lambda gradient: gradient * float("nan"))
        return summed, nll

    monkeypatch.setattr(Forward, "loss", loss)
    before = {name: p.detach().clone() for name, p in session.masters.parameters.items()}
    with pytest.raises(Diverged) as told:
        take_step(session)
    rows = sorted({row for pack in session._packs_of(0) for row in pack.rows})
    named = ", ".join(str(session.data.origins[row]) for row in rows[:8])
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    assert f"step 1: loss {'inf' if what == 'loss' else ''}" in told.value.saw
    assert told.value.saw.endswith(f"the batch held {named}{more}")
    assert "0.0005" in told.value.remedy
    assert all(torch.equal(before[name], p) for name, p in session.masters.parameters.items())
    assert session.state.step == 0
    assert all(p.grad is None or not p.grad.any() for p in session.model.parameters())


def test_more_than_eight_rows_are_counted() -> None:
    origins = {row: f"f:{row}" for row in range(11)}
    session: Any = SimpleNamespace(
        data=SimpleNamespace(origins=origins), schedule=SimpleNamespace(rate=lambda step: 0.25)
    )
    packs: Any = [SimpleNamespace(rows=(0, 1, 2, 3)), SimpleNamespace(rows=(4, 5, 6, 7))]
    said = step_module._diverged(session, 4, 1.0, 2.0, packs).saw
    assert said == "step 5: loss 1.0, gradient norm 2.0; the batch held " + ", ".join(
        f"f:{k}" for k in range(8)
    )
    packs.append(SimpleNamespace(rows=(8, 9)))
    assert step_module._diverged(session, 4, 1.0, 2.0, packs).saw.endswith("f:7 and 2 more")


def test_an_evaluation_is_one_division_and_keeps_the_best(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate(session)
    total = weight = right = 0.0
    session.model.eval()
    with torch.no_grad(), pack_attention(session.model, packed=session.forward.packed):
        for pack in session.held_out:
            summed, _, hits = session.forward.judge(pack)
            total, weight, right = total + float(summed), weight + pack.weight, right + int(hits.sum())
    assert found.loss == pytest.approx(total / weight, rel=1e-6)
    assert found.graded_tokens == sum(len(pack.targets) for pack in session.held_out)
    assert found.accuracy == right / found.graded_tokens
    assert found.best and found.step == 0
    state = session.state
    assert (state.best_loss, state.best_step, state.evaluations_without_better) == (found.loss, 0, 0)
    state.step = 3
    assert not evaluate(session).best  # as good is not better
    assert not evaluate(session).best
    assert (state.best_step, state.evaluations_without_better) == (0, 2)
    state.best_loss = 1e9
    assert evaluate(session).best
    assert (state.best_loss, state.best_step, state.evaluations_without_better) == (found.loss, 3, 0)


def test_sources_are_summed_over_packs() -> None:
    sums = SourceSums()
    sums.add(np.array([1, 0, 1]), np.array([2.0, 5.0, 4.0]), np.array([True, False, False]))
    sums.add(np.array([1, 0]), np.array([3.0, 1.0]), np.array([True, True]))
    assert list(sums.losses().items()) == [(0, 3.0), (1, 3.0)]
    assert sums.accuracies() == {0: 0.5, 1: 2 / 3}
    assert sums.tokens == {0: 2, 1: 3}
