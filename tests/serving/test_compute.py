"""Passes with company: each family's logits are transformers' own, and the same bits whoever is beside."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from burnish.serving import compute, keys
from burnish.serving.compute import Computer, Memory
from burnish.serving.roster import Roster, load_roster

ModelDirectory = Callable[..., Path]
PROMPTS = [[5, 9, 11], [7] * 40, [40, 41], [3, 4, 5, 6, 7, 8], [100]]


def logits_of(computer: Computer, prompts: Sequence[Sequence[int]], steps: int = 6) -> list[torch.Tensor]:
    """All logits of a few steps after each prompt, computed together."""
    served = next(iter(computer.roster.by_id.values()))
    memories = [Memory(served) for _ in prompts]
    found = [[computer.read(memory, ids)[-1]] for memory, ids in zip(memories, prompts, strict=True)]
    for step in range(steps):
        tokens = [(ids[0] * 7 + step) % 300 for ids in prompts]
        for rows, logits in zip(found, computer.step(memories, tokens), strict=True):
            rows.append(logits)
    return [torch.stack(rows) for rows in found]


@pytest.fixture(params=[1, 2], ids="{}-threads".format)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_neox", "gpt2"])
def test_logits_are_transformers_own_and_the_same_bits_in_any_company(
    family: str, model_directory: ModelDirectory
) -> None:
    roster = load_roster([str(model_directory(family))])
    with Computer(roster) as computer:
        assert computer.why_alone is None
        together = logits_of(computer, PROMPTS)
        alone = [logits_of(computer, [ids])[0] for ids in PROMPTS]
        shuffled = logits_of(computer, PROMPTS[::-1])[::-1]
    for ids, a, b, c in zip(PROMPTS, together, alone, shuffled, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
        fed = [*ids, *((ids[0] * 7 + step) % 300 for step in range(6))]
        with torch.no_grad():
            own = roster.model(input_ids=torch.tensor([fed])).logits[0, len(ids) - 1 :]
        torch.testing.assert_close(a, own, atol=2e-5, rtol=1e-4)


def test_a_prompt_read_in_chunks_gives_the_logits_of_the_whole(model_directory: ModelDirectory) -> None:
    roster = load_roster([str(model_directory("gemma2"))])  # with a sliding window of 16
    served = next(iter(roster.by_id.values()))
    ids = random.Random(0).choices(range(300), k=90)
    with Computer(roster, width=2) as computer:
        whole = computer.read(Memory(served), ids, all_rows=True)
        memory = Memory(served)
        chunks = [computer.read(memory, ids[at : at + 32], all_rows=True) for at in range(0, 90, 32)]
    assert whole.shape == (90, served.num_rows) and memory.length == 90
    torch.testing.assert_close(torch.cat(chunks), whole, atol=2e-5, rtol=1e-4)


def _roster(config: Any, directory: Path, tokenizer: Any) -> Roster:
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return load_roster([str(directory)])


def test_a_model_of_experts_is_computed_one_by_one(tokenizer: Any, tmp_path: Path) -> None:
    config = transformers.MixtralConfig(
        vocab_size=384, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    with Computer(_roster(config, tmp_path, tokenizer), width=6) as computer:
        assert computer.why_alone is not None and "experts" in computer.why_alone
        together = logits_of(computer, PROMPTS)
        alone = [logits_of(computer, [ids])[0] for ids in PROMPTS]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_the_probe_sees_rows_that_share_what_they_remember(
    model_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = keys.Rows.update

    def into_the_first(
        self: keys.Rows, key: torch.Tensor, value: torch.Tensor, layer: int, *rest: Any
    ) -> Any:
        if sum(sequence is not None for sequence in self.sequences) > 1:
            key = key.roll(1, 0)
        return whole(self, key, value, layer, *rest)

    monkeypatch.setattr(keys.Rows, "update", into_the_first)
    with Computer(load_roster([str(model_directory())]), width=4) as computer:
        assert computer.why_alone is not None and "bits depend" in computer.why_alone


def test_the_probe_sees_rows_whose_bits_depend_on_their_place(
    model_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Computer._forward

    def split(self: Computer, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        logits = right(self, ids, *rest)
        logits[4:] += 1e-6  # as where the second thread's share is of another size
        return logits

    monkeypatch.setattr(Computer, "_forward", split)
    with Computer(load_roster([str(model_directory())])) as computer:
        assert computer.why_alone is not None and "its place" in computer.why_alone


def test_the_probe_sees_positions_that_are_off_by_one(
    model_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "TOLERANCE", 1e-5)
    roster = load_roster([str(model_directory())])
    with Computer(roster, width=4) as computer:
        assert computer.why_alone is None
    right = Computer._forward

    def off(self: Computer, ids: torch.Tensor, at: torch.Tensor, *rest: Any) -> torch.Tensor:
        return right(self, ids, at + (at > 4), *rest)

    monkeypatch.setattr(Computer, "_forward", off)
    with Computer(roster, width=4) as computer:
        assert computer.why_alone is not None and "from its own" in computer.why_alone
