"""Each method on each family: it learns, stock PEFT reads what it saved, a merge keeps the answers and is undone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel

from burnish.adapters.bottleneck import load_bottleneck
from burnish.adapters.save import merged, merged_in_place, save_adapter
from tests.adapters.bench import CONFIGS, base, logits, new_ids, recipe, train, with_room

MERGING = ["lora", "dora", "rslora", "pissa", "lora_xs"]
BOUND = 1e-4


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("adapter", MERGING)
def test_a_saved_adapter_is_read_by_stock_peft_merged_and_taken_out_bit_for_bit(
    adapter: str, family: str, tmp_path: Path
) -> None:
    trained = train(recipe(adapter), with_room(family))
    assert trained.losses[-1] < trained.losses[0]
    tuned = logits(trained.model)
    assert apart(tuned, logits(with_room(family))) > 1e-2

    save_adapter(trained.model, tmp_path / "adapter")
    again = PeftModel.from_pretrained(with_room(family), tmp_path / "adapter")
    assert apart(tuned, logits(again)) <= BOUND

    before = {name: p.detach().clone() for name, p in trained.model.named_parameters()}
    with merged_in_place(trained.model):
        assert apart(tuned, logits(trained.model)) <= BOUND
    assert all(torch.equal(p, before[name]) for name, p in trained.model.named_parameters())
    assert torch.equal(tuned, logits(trained.model))

    merged(trained.model).save_pretrained(tmp_path / "final")
    plain, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "final", output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert apart(tuned, logits(plain)) <= BOUND
    _the_vocabulary_kept_its_rows(plain, family)


def _the_vocabulary_kept_its_rows(plain: transformers.PreTrainedModel, family: str) -> None:
    """Exactly the new tokens' rows moved, and what was tied is tied."""
    start, table = base(family).get_input_embeddings().weight, plain.get_input_embeddings().weight
    new = set(new_ids(plain))
    known = [row for row in range(len(start)) if row not in new]
    assert torch.equal(table[known], start[known])
    assert len(table) == max(len(start), 64)
    fresh = with_room(family).get_input_embeddings().weight
    assert all(not torch.equal(table[row], fresh[row]) for row in new)
    tied = plain.get_output_embeddings().weight is table
    assert tied == CONFIGS[family].tie_word_embeddings


@pytest.mark.parametrize("family", CONFIGS)
def test_a_saved_bottleneck_goes_back_on_its_base(family: str, tmp_path: Path) -> None:
    trained = train(recipe("bottleneck"), with_room(family))
    assert trained.losses[-1] < trained.losses[0]
    tuned = logits(trained.model)
    save_adapter(trained.model, tmp_path)
    assert torch.equal(logits(load_bottleneck(with_room(family), tmp_path)), tuned)
    left = merged(trained.model)
    _the_vocabulary_kept_its_rows(left, family)
    fresh = with_room(family).state_dict()
    moved = [name for name, value in left.state_dict().items() if not torch.equal(value, fresh[name])]
    assert left.state_dict().keys() == fresh.keys()
    tables = {id(left.get_input_embeddings().weight), id(left.get_output_embeddings().weight)}
    assert {id(left.get_parameter(name)) for name in moved} == tables


@pytest.mark.parametrize("family", CONFIGS)
def test_full_tuning_moves_everything_but_what_is_frozen(family: str) -> None:
    trained = train(recipe("full", freeze=[r"\.0\."]), with_room(family))
    for name, parameter in trained.model.named_parameters():
        assert torch.equal(parameter, trained.start[name]) == (".0." in name), name
