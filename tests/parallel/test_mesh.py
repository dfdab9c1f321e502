"""The mesh and the dealing of packs, which are arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.errors import UsageError
from burnish.parallel.launch import Launch, launched, torchrun, without_options
from burnish.parallel.mesh import Mesh, derive_mesh, share_out


@pytest.mark.parametrize(
    ("ranks", "how", "context", "per_node", "mesh"),
    [
        (4, "replicate", 1, 4, Mesh(replicate=4)),
        (4, "shard", 1, 4, Mesh(shard=4)),
        (8, "hybrid", 1, 4, Mesh(replicate=2, shard=4)),
        (4, "hybrid", 1, 4, Mesh(replicate=2, shard=2)),
        (8, "hybrid", 2, 4, Mesh(replicate=2, shard=2, context=2)),
        (6, "shard", 2, None, Mesh(shard=3, context=2)),
    ],
)
def test_the_mesh_follows_from_recipe_and_ranks(
    ranks: int, how: str, context: int, per_node: int | None, mesh: Mesh
) -> None:
    assert derive_mesh(ranks, data_parallel=how, context_parallel=context, per_node=per_node) == mesh
    assert mesh.size == ranks


@pytest.mark.parametrize(("ranks", "how", "context"), [(3, "hybrid", 1), (1, "hybrid", 1), (3, "shard", 2)])
def test_ranks_that_do_not_go_into_a_mesh_are_refused(ranks: int, how: str, context: int) -> None:
    with pytest.raises(UsageError, match=f"{ranks} ranks"):
        derive_mesh(ranks, data_parallel=how, context_parallel=context)


def test_a_mesh_says_what_it_is() -> None:
    assert str(Mesh(replicate=2, shard=4)) == "8 ranks: 2 replicas x 4 shards"
    assert Mesh(shard=2, context=2).place(3) == (1, 1)


@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(1, 9))
def test_every_pack_goes_to_one_rank_and_no_rank_has_a_pack_more_than_it_must(
    loads: list[int], ranks: int
) -> None:
    dealt = share_out(loads, ranks)
    assert sorted(index for mine in dealt for index in mine) == list(range(len(loads)))
    heavy = [sum(loads[index] for index in mine) for mine in dealt]
    assert max(heavy) - min(heavy) <= max(loads, default=0)
    assert dealt == share_out(list(loads), ranks)


def test_the_longest_pack_is_dealt_first() -> None:
    assert share_out([5, 9, 4, 4], 2) == [[1, 3], [0, 2]]
    assert share_out([7], 3) == [[0], [], []]


def test_a_launch_is_read_from_the_environment_and_alone_without_one() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
    said |= {
        "MASTER_ADDR": "here",
        "MASTER_PORT": "1",
        "TORCHELASTIC_RESTART_COUNT": "2",
        "TORCHELASTIC_RUN_ID": "k",
    }
    assert launched(said) == Launch(3, 8, 1, 2, "1", 2, "k")
    assert launched({**said, "TORCHELASTIC_USE_AGENT_STORE": "True"}).has_agent
    assert launched({"WORLD_SIZE": "8"}) == Launch()
    with pytest.raises(UsageError, match="MASTER_ADDR"):
        launched({"RANK": "0", "WORLD_SIZE": "2"})


def test_the_shorthand_is_torchrun_with_the_rest_of_the_command_line() -> None:
    words = without_options(
        ["train", "r.yaml", "--processes", "2", "--restarts=3", "x=--processes"],
        ["--processes", "--restarts"],
    )
    assert words == ["train", "r.yaml", "x=--processes"]
    command = torchrun(words, processes=2, restarts=3)
    assert command[1:5] == ["-m", "burnish.parallel.engine", "--standalone", "--nproc-per-node=2"]
    assert command[-4:] == ["burnish", *words]
