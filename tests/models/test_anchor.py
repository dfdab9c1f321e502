"""The anchor's term and its gradient are those of two models side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.adapters.off import adapter_off
from burnish.data.pack import total_weight
from burnish.models.anchor import Anchor
from burnish.models.forward import pack_attention
from burnish.models.generate import without_dropout
from burnish.training.run import prepare, train
from burnish.training.session import Session
from burnish.training.step import take_step
from tests.training.test_run import recipe

ModelDirectory = Callable[..., Path]
STRENGTH = 0.4


@pytest.fixture
def near_base(model_directory: ModelDirectory, data_file: Path, tmp_path: Path) -> Callable[..., Session]:
    """A session some steps away from its base."""

    def opened(**keys: Any) -> Session:
        settings = {
            "adapter": "lora", "learning_rate": 3e-2, "share_prefixes": True, "num_epochs": 3,
            "forgetting": {"kl_to_base": STRENGTH, "probes": []}, **keys,
        }  # fmt: skip
        session = prepare(recipe(model_directory("llama"), data_file, tmp_path, **settings).recipe)
        for _ in range(3):
            take_step(session)
        return session

    return opened


def two_models(session: Session) -> tuple[float, float, dict[str, torch.Tensor]]:
    """The two sums and the gradient of what they come to, through plain logits of one document at a time."""
    nll = kl = torch.zeros(())
    model = session.model
    with without_dropout(model):
        for row in session.rows_of(session.state.step):
            for example in session.data.train[row]:
                ids = torch.tensor([example.input_ids])
                with torch.no_grad(), adapter_off(model):
                    base = model(ids).logits[0].float().log_softmax(-1)
                ours = model(ids).logits[0].float().log_softmax(-1)
                for k, weight in enumerate(example.weights):
                    if weight:
                        nll = nll - weight * ours[k - 1, example.input_ids[k]]
                        kl = kl + weight * (base[k - 1].exp() * (base[k - 1] - ours[k - 1])).sum()
        (nll + STRENGTH * kl).backward()
    gradient = {name: p.grad.clone() for name, p in session.masters.parameters.items() if p.grad is not None}
    session.masters.zero_grad()
    return float(nll), float(kl), gradient


@pytest.mark.parametrize(
    "more",
    [{}, {"packing": False}, {"adapter": "pissa"}, {"adapter": "lora_xs"}, {"adapter": "dora"}],
    ids=str,
)
def test_loss_and_gradient_are_those_of_two_models(
    more: dict[str, Any], near_base: Callable[..., Session]
) -> None:
    session = near_base(**more)
    nll, kl, expected = two_models(session)
    assert kl > 0.1
    assert session.anchor is not None
    packs = session.packs([e for row in session.rows_of(session.state.step) for e in session.data.train[row]])
    sums = [0.0, 0.0]
    with without_dropout(session.model), pack_attention(session.model, packed=session.forward.packed):
        for pack in packs:
            part, _, pull = session.anchor.loss(pack)
            (part + pull).backward()
            sums = [sums[0] + float(part), sums[1] + float(pull)]
    assert sums == pytest.approx([nll, STRENGTH * kl], rel=1e-4)
    for name, parameter in session.masters.parameters.items():
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=2e-3, atol=2e-4 * total_weight(packs) ** 0.5
        )


def test_an_anchor_whose_base_has_the_adapter_on_would_hold_nothing_and_is_seen(
    near_base: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = near_base()
    (pack, *_) = session.packs(list(session.data.train[0]))
    pulls = []
    for planted in (adapter_off, nullcontext):
        monkeypatch.setattr("burnish.models.anchor.adapter_off", planted)
        with without_dropout(session.model), pack_attention(session.model, packed=True):
            pulls.append(float(Anchor(session.forward, STRENGTH).loss(pack)[2].detach()))
    assert pulls[0] > 0.05 and abs(pulls[1]) < 1e-5


def test_switching_off_gives_the_base_and_leaves_what_is_trained_as_it_was(
    near_base: Callable[..., Session], model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    session = near_base(adapter="pissa")
    fresh = prepare(recipe(model_directory("llama"), data_file, tmp_path, adapter="pissa").recipe)
    trained = {name for name, p in session.model.named_parameters() if p.requires_grad}
    ids = torch.tensor([[5, 9, 40, 41, 7]])
    with torch.no_grad(), without_dropout(session.model), without_dropout(fresh.model):
        moved = session.model(ids).logits
        with adapter_off(session.model):
            off = session.model(ids).logits
        torch.testing.assert_close(off, fresh.model(ids).logits, rtol=1e-4, atol=1e-5)
        assert (moved - off).abs().max() > 1e-2
    assert {name for name, p in session.model.named_parameters() if p.requires_grad} == trained


def test_an_anchored_run_stays_nearer_to_its_base_and_records_how_near(
    model_directory: ModelDirectory, data_file: Path, tmp_path: Path
) -> None:
    ends = {}
    for name, strength in (("loose", 1e-6), ("held", 30.0)):
        keys = {"adapter": "lora", "learning_rate": 3e-2, "num_epochs": 4}
        run = train(
            recipe(
                model_directory("llama"), data_file, tmp_path / name, **keys,
                forgetting={"kl_to_base": strength, "probes": []},
            )
        ).run  # fmt: skip
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        ends[name] = steps[-1]["kl_to_base"]
        assert abs(steps[0]["kl_to_base"]) < 1e-3  # the first update starts from the base itself
    assert 0 <= ends["held"] < 0.3 * ends["loose"], ends
