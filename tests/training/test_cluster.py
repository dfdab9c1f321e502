"""What a rank holds and sends: sums that can be done on paper, and orders that must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from burnish.errors import UsageError
from burnish.models.anatomy import Anatomy, anatomy_of
from burnish.parallel.mesh import Mesh
from burnish.recipe.schema import Recipe
from burnish.training.cluster import (
    Choice,
    changes,
    choices,
    on_cluster,
    rank_forecast,
    read_cluster,
    ring_bytes,
)
from burnish.training.forecast import FOUR_BITS, GB, Work, memory_of
from burnish.training.holding import gathered, rank_memory
from tests.training.test_forecast import LLAMA_70B

EIGHT = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
WORK = Work(steps=100, computed_tokens=2.6e7, graded_tokens=1e7, mean_context=1000, pack_tokens=16_384)
LONG = Work(steps=100, computed_tokens=1e8, graded_tokens=1e7, mean_context=65_536, pack_tokens=131_072)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Anatomy:
    path = tmp_path_factory.mktemp("8b")
    transformers.LlamaConfig(**EIGHT).save_pretrained(path)
    return anatomy_of(str(path))


@pytest.fixture(scope="module")
def seventy(tmp_path_factory: pytest.TempPathFactory) -> Anatomy:
    path = tmp_path_factory.mktemp("70b")
    transformers.LlamaConfig(**LLAMA_70B).save_pretrained(path)
    return anatomy_of(str(path))


def asked(**more: Any) -> Recipe:
    return Recipe(model="m", datasets="d", **{"gradient_checkpointing": True, **more})  # type: ignore[arg-type]


def ways(anatomy: Anatomy, recipe: Recipe, said: str, work: Work = WORK) -> list[Choice]:
    trained = anatomy.parameters if recipe.adapter == "full" else anatomy.lora_parameters(recipe.lora_r)
    return choices(read_cluster(said), recipe, anatomy, trained=trained, work=work)


def test_devices_are_read_as_people_say_them() -> None:
    cluster = read_cluster("2x8xH100-80G")
    assert (cluster.nodes, cluster.per_node, cluster.accelerator.name) == (2, 8, "H100")
    assert read_cluster("1x4090").devices == 1 and read_cluster("8xA100-40G").accelerator.memory == 40e9
    assert str(cluster) == "2 nodes of 8 x H100"
    for wrong in ("H100", "0xH100", "8xAbacus", "8xH100-40G", "x8"):
        with pytest.raises(UsageError):
            read_cluster(wrong)


def test_dealt_states_are_sixteen_bytes_a_parameter_over_the_ranks(eight: Anatomy) -> None:
    """Weights are gathered from the masters, so that of the 18 bytes of one device 16 are left to deal."""
    recipe = asked(data_parallel="shard")
    memory, host = rank_memory(
        recipe, eight, Mesh(shard=8, deals=True), trained=eight.parameters, pack_tokens=1
    )
    kept = memory.masters + memory.gradients + memory.optimizer
    assert kept == pytest.approx(16 * eight.parameters / 8) and host == 0
    assert memory.weights == pytest.approx(gathered(recipe, eight, eight.parameters))
    whole = memory_of(recipe, eight, trained=eight.parameters, pack_tokens=1)
    assert whole.weights + whole.masters + whole.gradients + whole.optimizer == 18 * eight.parameters


def test_a_frozen_base_is_dealt_too_and_offload_moves_a_share_to_the_host(eight: Anatomy) -> None:
    trained = eight.lora_parameters(16)
    mesh = Mesh(shard=4, deals=True)
    recipe = asked(data_parallel="shard", adapter="lora")
    memory, _ = rank_memory(recipe, eight, mesh, trained=trained, pack_tokens=1)
    share = memory.weights - gathered(recipe, eight, trained)
    assert share == pytest.approx(2 * eight.parameters / 4)
    moved, host = rank_memory(
        recipe.model_copy(update={"cpu_offload": True}), eight, mesh, trained=trained, pack_tokens=1
    )
    assert moved.weights == pytest.approx(gathered(recipe, eight, trained))
    assert host == pytest.approx(1.1 * (share + memory.masters + memory.gradients + memory.optimizer))


def test_context_ranks_share_activations_and_hold_weights_as_shards_do(eight: Anatomy) -> None:
    alone, _ = rank_memory(asked(), eight, Mesh(), trained=eight.parameters, pack_tokens=131_072)
    mesh = Mesh(context=8, deals=True)
    shared, _ = rank_memory(asked(), eight, mesh, trained=eight.parameters, pack_tokens=131_072)
    assert alone.activations / 8 < shared.activations < alone.activations / 6
    assert shared.optimizer == pytest.approx(alone.optimizer / 8)


def test_a_ring_sends_keys_values_and_their_gradients() -> None:
    anatomy = Anatomy(
        0, 0, layers=2, hidden=8, attention_width=8, key_value_width=4, intermediate=8, vocabulary=9
    )
    # of 10 tokens a rank has 5: 2 layers x 5 x (4 + 4) numbers; there once, back once, gradients twice in fp32
    assert ring_bytes(anatomy, tokens=10, ranks=2, width=4) == 80 * (4 + 4 + 2 * 4)


def test_eight_billion_parameters_fit_on_eight_devices_dealt_and_not_whole(eight: Anatomy) -> None:
    found = ways(eight, asked(), "8xH100-80G")
    by_name = {way.name: way for way in found}
    assert not found[0].fits and found[0].forecast.memory.total > 140 * GB
    assert by_name["data_parallel=shard"].fits
    said = list(changes_of(eight, asked(), "8xH100-80G"))
    assert any(line.startswith("data_parallel=shard") for line in said)


def changes_of(anatomy: Anatomy, recipe: Recipe, said: str, work: Work = WORK) -> list[str]:
    cluster = read_cluster(said)
    forecast = on_cluster(cluster, recipe, anatomy, trained=anatomy.parameters, work=work)
    return list(changes(cluster, ways(anatomy, recipe, said, work), forecast, recipe))


def test_seventy_billion_ask_for_an_adapter_or_more_devices(seventy: Anatomy) -> None:
    said = "\n".join(changes_of(seventy, asked(data_parallel="shard"), "8xH100-80G"))
    assert "adapter=lora" in said and "GB a device, which fits" in said
    assert "on 64 such devices fits" in said


def test_two_nodes_sum_across_the_network_and_hybrid_gathers_within_a_node(eight: Anatomy) -> None:
    shard, hybrid = (
        rank_forecast(
            read_cluster("2x8xH100"), asked(data_parallel=how), eight, trained=eight.parameters, work=WORK
        )
        for how in ("shard", "hybrid")
    )
    assert (str(shard.mesh), str(hybrid.mesh)) == ("16 ranks: 16 shards", "16 ranks: 2 replicas x 8 shards")
    assert hybrid.sending["gathering"] < 0.2 * shard.sending["gathering"]
    assert hybrid.sending["summing"] > shard.sending["summing"] == 0
    assert hybrid.memory.optimizer == pytest.approx(2 * shard.memory.optimizer)


def test_long_packs_fit_where_their_tokens_are_shared_out(eight: Anatomy) -> None:
    recipe = asked(data_parallel="shard", gradient_checkpointing=False)
    found = {way.name: way for way in ways(eight, recipe, "8xH100-80G", LONG)}
    assert not found["as the recipe says"].fits
    assert found["data_parallel=shard context_parallel=8 gradient_checkpointing=true"].fits
    assert (
        found["data_parallel=shard context_parallel=8 gradient_checkpointing=true"].forecast.sending["ring"]
        > 0
    )


def test_a_base_in_4_bits_is_dealt_and_gathered_as_such(eight: Anatomy) -> None:
    trained = eight.lora_parameters(16)
    recipe = asked(data_parallel="shard", adapter="qlora")
    memory, _ = rank_memory(recipe, eight, Mesh(shard=4, deals=True), trained=trained, pack_tokens=1)
    whole = memory_of(recipe, eight, trained=trained, pack_tokens=1).weights
    assert memory.weights - gathered(recipe, eight, trained) == pytest.approx(whole / 4)
    lora = asked(data_parallel="shard", adapter="lora")
    layers = 3 * eight.layer_parameters / eight.layers
    spared = gathered(lora, eight, trained) - gathered(recipe, eight, trained)
    assert spared == pytest.approx(layers * (2 - FOUR_BITS))
    dealt = next(way for way in ways(eight, recipe, "4xH100-80G") if not way.keys)
    assert dealt.forecast.sending["gathering"] > 0


def test_a_way_that_the_devices_do_not_make_or_qdora_does_not_take_is_left_out(eight: Anatomy) -> None:
    assert not any("hybrid" in way.name for way in ways(eight, asked(), "4x4090"))
    assert [way.name for way in ways(eight, asked(adapter="qdora"), "2x4090")] == ["as the recipe says"]
    assert [way.name for way in ways(eight, asked(), "1x4090")] == ["as the recipe says"]


def test_a_plan_for_one_device_is_the_arithmetic_of_one_process(tmp_path: Path, eight: Anatomy) -> None:
    rank = rank_forecast(read_cluster("1xH100"), asked(), eight, trained=eight.parameters, work=WORK)
    assert rank.memory == memory_of(asked(), eight, trained=eight.parameters, pack_tokens=WORK.pack_tokens)
    assert set(rank.sending.values()) == {0.0} and rank.step == rank.computing
