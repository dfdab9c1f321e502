"""The oracle agrees with plain transformers where nothing is wrong, and names the part that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.data import pack as packs
from burnish.errors import UsageError
from burnish.kernels import library, operations
from burnish.models import kept_attention
from burnish.models.forward import Forward
from burnish.recipe.load import load_recipe
from burnish.training import oracle, session
from burnish.training.oracle import FLAT, HEAD, KERNELS, consult, settle
from burnish.training.run import prepare
from burnish.training.session import Session


def opened(model: Path, data: Path, **more: Any) -> Session:
    keys = {"model": str(model), "datasets": str(data), "dtype": "float32", "global_batch_size": 4, **more}
    return prepare(load_recipe(None, keys).recipe)


@pytest.fixture
def model(model_directory: Callable[..., Path]) -> Path:
    return model_directory()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_fast_path_is_that_of_plain_transformers_and_nothing_changes_by_asking(
    model: Path, data_file: Path, adapter: str, dtype: str
) -> None:
    subject = opened(model, data_file, adapter=adapter, dtype=dtype, lora_dropout=0.1)
    before = {name: p.detach().clone() for name, p in subject.masters.parameters.items()}
    owners = {name: p for name, p in subject.model.named_parameters(remove_duplicate=False)}
    was_training = subject.model.training
    verdict = consult(subject)
    assert verdict.ok and verdict.culprit is None and verdict.rows >= 2
    assert dtype == "bfloat16" or verdict.loss < 1e-6
    for name, parameter in subject.masters.parameters.items():
        assert parameter.grad is None and torch.equal(parameter, before[name])
    after = {name: p for name, p in subject.model.named_parameters(remove_duplicate=False)}
    assert owners.keys() == after.keys() and all(owners[name] is after[name] for name in owners)
    assert subject.model.training == was_training


def test_attention_across_documents_is_found_and_the_run_refused(
    model: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = opened(model, data_file)
    build = session.pack_all

    def one_document(*given: Any, **options: Any) -> list[packs.Pack]:
        return [
            replace(
                pack,
                segments=(packs.Segment(0, len(pack), -1),),
                reach=pack.reach * 0 + len(pack),
            )
            for pack in build(*given, **options)
        ]

    monkeypatch.setattr(session, "pack_all", one_document)
    with pytest.raises(UsageError) as refused:
        settle(subject)
    assert "without sharing prefixes it is right" in str(refused.value)
    assert "share_prefixes=false" in str(refused.value)


def test_wrong_attention_is_named_though_every_pack_is_right(
    model: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = opened(model, data_file)
    honest = kept_attention._probabilities

    def blurred(*given: Any) -> torch.Tensor:
        p = honest(*given)
        return p.mul_(0.9)

    monkeypatch.setattr(kept_attention, "_probabilities", blurred)
    verdict = consult(subject)
    assert not verdict.ok and verdict.culprit == "attention by the reach rule"


def test_a_head_that_is_not_the_models_is_given_up_and_training_goes_on(
    model: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = opened(model, data_file)
    honest = Forward.loss

    def doubled(self: Forward, pack: packs.Pack, **options: float) -> Any:
        loss, nll = honest(self, pack, **options)
        return (2 * loss if self.head is not None else loss), nll

    monkeypatch.setattr(Forward, "loss", doubled)
    assert consult(subject).culprit == HEAD
    assert settle(subject).ok
    assert (
        subject.forward.head is None
        and not subject.forward.flat
        and "not the model's own" in str(subject.forward.why_no_head)
    )


def test_a_forward_of_ours_that_errs_is_given_up_for_transformers_modules(
    model: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = opened(model, data_file)
    honest = Forward.hidden

    def bent(self: Forward, pack: packs.Pack) -> torch.Tensor:
        states = honest(self, pack)
        return states * 1.01 if self.flat and self._checked and torch.is_grad_enabled() else states

    monkeypatch.setattr(Forward, "hidden", bent)
    assert consult(subject).culprit == FLAT
    assert settle(subject).ok and not subject.forward.flat and subject.forward.head is not None


@pytest.mark.skipif(library.kernels() is None, reason=f"no kernels here: {library.why_none()}")
@pytest.mark.parametrize("name", ["attention", "attention_backward", "grade"])
def test_kernels_that_err_are_given_up_for_torchs_operations(
    model_directory: Callable[..., Path], data_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = model_directory("wide")  # heads of 16 numbers
    subject = opened(model, data_file, dtype="bfloat16")
    honest = getattr(operations, name)

    def bent(*given: Any, **options: Any) -> Any:
        made = honest(*given, **options)
        if name == "grade":
            given[0].mul_(1.1)
            return made
        return (1.5 * made[0], made[1], *(1.5 * x for x in made[2:]))

    monkeypatch.setattr(operations, name, bent)
    monkeypatch.setattr(library, "_off", [])
    assert consult(subject).culprit == KERNELS
    assert library.why_none() is None
    assert settle(subject).ok
    assert "not the model's own" in str(library.why_none())


def test_the_difference_of_gradients_is_that_of_one_long_vector() -> None:
    truth = oracle.Truth(2.0, {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0])})
    assert oracle._apart(2.0, truth.gradient, truth) == (0.0, 0.0)
    other = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([5.0])}
    assert oracle._apart(1.0, other, truth) == (0.5, 1.0)
    assert oracle._apart(2.0, {}, truth)[1] == 1.0
