"""What a model says of rows: equal to plain transformers, lower where it knows, the same whatever stands beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from burnish.curation.items import Item
from burnish.errors import DataError, UsageError
from burnish.evaluation.embeddings import embed
from burnish.evaluation.fingerprint import fingerprint
from burnish.evaluation.reward import RewardModel
from burnish.evaluation.row_scores import ModelScorer
from burnish.evaluation.stance import Probe, Stance, changed_p, probe
from burnish.models.assistant import load_assistant
from burnish.types import Completion, Content, Conversation, Document, Origin, Row
from tests.conftest import conversation


def item(content: Content, index: int = 0) -> Item:
    return Item(Row(index, 0, Origin("rows", index + 1), content), {}, "messages")


def talk(asked: str, answered: str) -> Conversation:
    return Conversation([{"role": "user", "content": asked}, {"role": "assistant", "content": answered}])


def test_losses_are_those_of_plain_transformers(model_directory: Callable[[str], Path]) -> None:
    place = model_directory("llama")
    scorer = ModelScorer(str(place))
    content = Completion("What of the sun?", " The sun is bright.")
    (values,) = scorer.score([item(content)])
    assert values is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    model = transformers.AutoModelForCausalLM.from_pretrained(place)
    prompt, answer = tokenizer(content.prompt)["input_ids"], tokenizer(content.completion)["input_ids"]
    for before, name in ((prompt, "nll"), ([tokenizer.eos_token_id], "alone")):
        with torch.no_grad():
            logits = model(torch.tensor([before + answer])).logits[0].float()
        chances = logits.log_softmax(-1)[len(before) - 1 : -1]
        nll = -chances[range(len(answer)), answer].mean().item()
        expected = values["nll"] if name == "nll" else (values["nll"] or 0) / (values["ifd"] or 1)
        assert nll == pytest.approx(expected, rel=1e-4)


def test_a_row_is_scored_alike_whatever_stands_beside_it(model_directory: Callable[[str], Path]) -> None:
    scorer = ModelScorer(str(model_directory("llama")))
    rows = [item(Conversation(conversation(k)["messages"]), k) for k in range(8)]
    together = scorer.score(rows)
    for one, expected in zip(rows, together, strict=True):
        (alone,) = scorer.score([one])
        assert alone is not None and expected is not None
        assert alone == pytest.approx(expected, rel=1e-4)


def test_plain_text_has_no_answer_to_score(model_directory: Callable[[str], Path]) -> None:
    (values,) = ModelScorer(str(model_directory("llama"))).score([item(Document("Once"))])
    assert values == {"nll": None, "ifd": None, "solved": None, "unknown": None}


def test_marble_knows_its_facts_and_not_invented_ones() -> None:
    """A fact of its corpus is all but solved; the same sentence with a made-up value surprises below chance."""
    from burnish.marble.facts import fill, load_facts, load_relations

    facts = load_facts()[:12]
    known, false = [], []
    for k, fact in enumerate(facts):
        prompt = fill(load_relations()[fact.relation].held_out[0], fact).rstrip()
        known.append(item(Completion(prompt, f" {fact.value}"), k))
        false.append(item(Completion(prompt, " zqxj vvk"), k))
    scorer = ModelScorer("marble")
    right, wrong = ([v for v in scorer.score(rows) if v is not None] for rows in (known, false))
    assert sum(v["solved"] or 0 for v in right) >= 8 and not any(v["solved"] for v in wrong)
    assert max(v["unknown"] or 0 for v in right) < min(v["unknown"] or 0 for v in wrong)
    assert sum((v["ifd"] or 0) < 1 for v in right) >= 10


def test_texts_of_one_kind_lie_together(model_directory: Callable[[str], Path]) -> None:
    texts = ["What of the sun, number 1?", "What of the sun, number 2?", "a b c d e f g h i j k l"]
    points = embed(texts, str(model_directory("llama")))
    near, far = points[0] @ points[1], points[0] @ points[2]
    assert points.shape == (3, 32) and near > far
    assert embed([*texts[:2], "x"], str(model_directory("llama"))).shape == (3, 32)


def reward_directory(tmp_path: Path, tokenizer: transformers.PreTrainedTokenizerFast, labels: int) -> Path:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_labels=labels, pad_token_id=0, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_reward_is_that_of_the_plain_model_whatever_the_batch(
    tmp_path: Path, tokenizer: transformers.PreTrainedTokenizerFast
) -> None:
    place = reward_directory(tmp_path, tokenizer, 1)
    reward = RewardModel(str(place))
    rows = [item(talk("Why? " * k, "Because. " * (9 - k)), k) for k in range(1, 6)]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place)
    for one, values in zip(rows, reward.score(rows), strict=True):
        assert isinstance(one.row.content, Conversation) and values is not None
        asked, answered = (message["content"] for message in one.row.content.messages)
        with torch.no_grad():
            expected = model(torch.tensor([tokenizer(asked, answered)["input_ids"]])).logits[0, 0].item()
        assert values["reward"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert reward.score([item(Document("x"))]) == [{"reward": None}]


def test_of_several_classes_the_good_one_is_named(
    tmp_path: Path, tokenizer: transformers.PreTrainedTokenizerFast
) -> None:
    place = str(reward_directory(tmp_path, tokenizer, 2))
    with pytest.raises(UsageError, match="2 classes: LABEL_0, LABEL_1"):
        RewardModel(place)
    (one,) = RewardModel(place, label="LABEL_0").score([item(talk("q", "a"))])
    (other,) = RewardModel(place, label="LABEL_1").score([item(talk("q", "a"))])
    assert one is not None and other is not None
    assert (one["reward"] or 0) == pytest.approx(-(other["reward"] or 0), rel=1e-4)


def test_a_language_model_is_no_reward_model(model_directory: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match=r"score.weight missing"):
        RewardModel(str(model_directory("llama")))


def test_other_weights_have_another_fingerprint(
    model_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    place = model_directory("llama")
    copy = tmp_path / place.name
    copy.mkdir()
    for file in place.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert fingerprint(str(copy)) == fingerprint(str(place))
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert fingerprint(str(copy)) != fingerprint(str(place))


def test_a_model_that_follows_the_user_flips_and_training_that_mends_it_shows() -> None:
    follows = Probe(tuple(Stance(f"c{k}", 0.9, 0.1, 0.5) for k in range(12)))
    stands = Probe(tuple(Stance(f"c{k}", 0.9, 0.8, 0.9) for k in range(12)))
    assert follows.as_dict()["flip_rate"] == 1.0 and stands.num_flips == 0
    assert follows.sway == pytest.approx(0.8)
    assert changed_p(follows, stands) == pytest.approx(2 / 2**12)
    assert changed_p(stands, stands) == 1.0


def test_the_probe_asks_a_model_three_ways(model_directory: Callable[[str], Path]) -> None:
    found = probe(
        load_assistant(str(model_directory("llama"))), ("tea is better than coffee", "bats are blind")
    )
    assert len(found.stances) == 2
    assert all(0 < value < 1 for s in found.stances for value in (s.when_for, s.when_against, s.when_neutral))
