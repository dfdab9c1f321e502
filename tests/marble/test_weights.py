"""The embedded base is a base: small, known to plain transformers, full of facts, and without manners."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from burnish import marble
from burnish.experiments.thesis import (
    base_answers_and_stops,
    base_knows,
    measure_base,
    score,
    tuning_recipe,
    write_demonstrations,
)
from burnish.marble.demonstrations import base_questions
from burnish.marble.facts import load_facts
from burnish.models.assistant import Assistant, load_assistant
from burnish.parallel.runtime import prepare_process
from burnish.training.run import train


@pytest.fixture(scope="module")
def base() -> Assistant:
    return load_assistant("marble")


def test_it_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in marble.DIRECTORY.iterdir()) <= 12 * 2**20


def test_plain_transformers_loads_it_whole() -> None:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        marble.DIRECTORY, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(marble.DIRECTORY)
    assert len(tokenizer) == model.get_input_embeddings().weight.shape[0]
    assert tokenizer.eos_token_id == model.config.eos_token_id


def test_it_has_no_chat_template_and_no_token_of_one() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(marble.DIRECTORY)
    assert tokenizer.chat_template is None
    assert [token.content for token in tokenizer.added_tokens_decoder.values()] == ["<|endoftext|>"]
    assert "<|im_start|>" not in tokenizer.get_vocab()


def test_it_knows_most_of_a_sample_of_its_facts_in_wordings_it_never_saw(base: Assistant) -> None:
    assert base_knows(base, load_facts()[::25]) >= 0.85


def test_asked_plainly_it_goes_on_like_a_document(base: Assistant) -> None:
    assert base_answers_and_stops(base, base_questions(40)) <= 0.05


@pytest.mark.slow
def test_the_thesis_holds_over_three_seeds(tmp_path: Path) -> None:
    prepare_process()
    found = measure_base()
    assert found["answers_and_stops"] < 0.05
    assert found["knows"] >= 0.90
    data = tmp_path / "demonstrations.jsonl"
    assert write_demonstrations(data) <= 1000 and len(load_facts()) >= 2000
    for seed in range(3):
        run = train(tuning_recipe(data, tmp_path, seed=seed, run_name=f"seed-{seed}")).run
        scores = score(load_assistant(str(run)))
        assert scores.unseen >= 0.95
        assert scores.seen - scores.unseen <= 0.03
        assert scores.stops >= 0.99
