"""One base in memory, adapters beside it: each answers as it would by itself, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from burnish.errors import DataError, UsageError
from burnish.models.assistant import load_assistant
from burnish.serving.compute import Computer, Memory
from burnish.serving.roster import WEIGHTS, Roster, load_roster, place_of

ModelDirectory = Callable[..., Path]
Trained = Callable[..., Path]
PROMPT = "What of the sun, number 3?"


def answers_of(computer: Computer, name: str, steps: int = 4) -> torch.Tensor:
    """Logits after a prompt, and after each of a few tokens."""
    served = computer.roster.by_id[name]
    memory = Memory(served)
    rows = [computer.read(memory, served.tokenizer.prompt_ids(PROMPT))[-1]]
    return torch.stack([*rows, *(computer.step([memory], [50 + step])[0] for step in range(steps))])


def test_base_and_adapters_answer_interleaved_as_each_by_itself(
    two_runs: tuple[Path, Path], model_directory: ModelDirectory
) -> None:
    roster = load_roster([str(run) for run in two_runs])
    base = model_directory().name
    assert list(roster.by_id) == [base, "poet", "pirate"]
    expected = {}
    for name, run in ((base, None), ("poet", two_runs[0]), ("pirate", two_runs[1])):
        alone = load_assistant(
            str(model_directory()), adapter=run and str(run / "adapter"), dtype=torch.float32
        )
        ids = [*alone.tokenizer.prompt_ids(PROMPT), 50, 51, 52, 53]
        with torch.no_grad():
            expected[name] = alone.model(input_ids=torch.tensor([ids])).logits[0, -5:]
    num_rows = expected[base].shape[1]
    assert (expected["poet"] - expected["pirate"]).abs().max() > 1e-2
    assert (expected["poet"][:, :num_rows] - expected[base]).abs().max() > 1e-2
    with Computer(roster, width=3) as computer:
        for name in (base, "poet", "pirate", base, "pirate", "poet", base):
            torch.testing.assert_close(answers_of(computer, name), expected[name], atol=2e-5, rtol=1e-4)


def test_the_base_never_answers_with_a_token_that_only_adapters_have(two_runs: tuple[Path, Path]) -> None:
    roster = load_roster([str(two_runs[0])])
    base, poet = roster.by_id.values()
    assert poet.num_rows == base.num_rows + 2 == roster.inner.get_input_embeddings().weight.shape[0]
    with Computer(roster, width=2) as computer:
        assert computer.read(Memory(base), [5, 6]).shape == (1, base.num_rows)
        assert computer.read(Memory(poet), [5, 6]).shape == (1, poet.num_rows)


def test_stop_ids_and_template_are_those_of_training(two_runs: tuple[Path, Path]) -> None:
    poet = load_roster([str(two_runs[0])]).by_id["poet"]
    trained = json.loads((two_runs[0] / "adapter" / "chat.json").read_text())
    assert poet.stop_ids == set(trained["stop_ids"]) and len(poet.stop_ids) == 2
    assert poet.tokenizer.identity.template_sha256 == trained["template_sha256"]


def test_a_run_of_full_weights_is_its_own_base(trained: Trained) -> None:
    run = trained("whole", adapter="full")
    roster = load_roster([str(run)])
    assert list(roster.by_id) == ["whole"]
    assert place_of(str(run)).base == str(run / "final")


def test_two_bases_and_two_of_one_name_are_refused(
    two_runs: tuple[Path, Path], model_directory: ModelDirectory
) -> None:
    with pytest.raises(UsageError, match="2 bases"):
        load_roster([str(two_runs[0]), str(model_directory("qwen2"))])
    with pytest.raises(UsageError, match="'poet'"):
        load_roster([str(two_runs[0]), str(two_runs[0])])


@pytest.fixture
def adapter(two_runs: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_runs[0] / "adapter", tmp_path / "broken"))


def test_an_adapter_directory_is_served_by_itself(adapter: Path) -> None:
    roster: Roster = load_roster([str(adapter)])
    assert list(roster.by_id)[1] == "broken"


def test_an_adapter_whose_names_do_not_match_is_refused(adapter: Path) -> None:
    weights = load_file(adapter / WEIGHTS)
    name = next(key for key in weights if "q_proj" in key)
    weights[name.replace("q_proj", "r_proj")] = weights.pop(name)
    save_file(weights, adapter / WEIGHTS)
    with pytest.raises(DataError, match="no place in the model"):
        load_roster([str(adapter)])


def test_an_adapter_in_a_pickle_is_refused(adapter: Path) -> None:
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(DataError, match="pickle"):
        load_roster([str(adapter)])


def test_another_template_than_that_of_training_is_refused(adapter: Path) -> None:
    template = adapter / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(DataError, match="was trained with chat template"):
        load_roster([str(adapter)])


def test_a_vocabulary_that_lies_in_an_adapters_file_never_replaces_the_bases(
    adapter: Path, model_directory: ModelDirectory
) -> None:
    weights = load_file(adapter / WEIGHTS)
    table = "base_model.model.model.embed_tokens.token_adapter.base_layer.weight"  # as PEFT itself saves it
    assert table not in weights  # burnish does not
    own = load_file(model_directory() / "model.safetensors")["model.embed_tokens.weight"]
    weights[table] = torch.cat([own, own[:2]]).bfloat16().float()  # as a run in 16 bits leaves it
    save_file(weights, adapter / WEIGHTS)
    served = load_roster([str(adapter)]).inner.get_input_embeddings().weight
    assert torch.equal(served[: len(own)], own) and not torch.equal(weights[table][: len(own)], own)
    weights[table] = weights[table] + 1.0
    save_file(weights, adapter / WEIGHTS)
    with pytest.raises(DataError, match="is not the base's"):
        load_roster([str(adapter)])


def test_a_bottleneck_run_answers_as_itself_and_takes_no_adapter_beside_it(
    trained: Trained, two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = trained("narrow", adapter="bottleneck", bottleneck_size=8, learning_rate=5e-2)
    alone = load_assistant(str(run), dtype=torch.float32)
    ids = [*alone.tokenizer.prompt_ids(PROMPT), 50, 51, 52, 53]
    with torch.no_grad():
        expected = alone.model(input_ids=torch.tensor([ids])).logits[0, -5:]
    with Computer(load_roster([str(run)]), width=4) as computer:
        torch.testing.assert_close(answers_of(computer, "narrow"), expected, atol=2e-5, rtol=1e-4)

    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    (bare / "final" / "bottleneck.json").unlink()
    with Computer(load_roster([str(bare)]), width=4) as computer:
        assert (answers_of(computer, "bare") - expected).abs().max() > 1e-2

    adapter = Path(shutil.copytree(two_runs[0] / "adapter", tmp_path / "beside"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(run / "final")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="has a bottleneck"):
        load_roster([str(run), str(adapter)])
