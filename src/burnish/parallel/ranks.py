"""The ranks of a run: what one process says to the others, and the same words for a process that is alone.

`ALONE` answers every question by itself, so that the code of training is one code. Other processes are found as
torchrun and its like announce them, in the environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.rendezvous import rendezvous

from burnish import errors
from burnish.errors import BurnishError, UsageError
from burnish.parallel.launch import Launch
from burnish.parallel.mesh import DIMENSIONS, Mesh
from burnish.parallel.watchdog import Watchdog

LONGEST_COLLECTIVE = timedelta(minutes=10)
"""Ranks that live and do not meet for so long will never meet."""

POLL = 0.2
ONE = Mesh()


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the processes of a run; `devices` is torch's mesh of them, None where it is alone.

    `of_node` of them share this machine.
    """

    rank: int = 0
    mesh: Mesh = ONE
    devices: Any = None
    store: Any = None
    node: str = "0"
    first_of_node: bool = True
    of_node: int = 1
    watchdog: Watchdog | None = field(default=None, repr=False)
    owns_group: bool = False

    @property
    def size(self) -> int:
        """How many there are."""
        return self.mesh.size

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def share(self) -> int:
        """Which share of the packs is this rank's."""
        return self.mesh.place(self.rank)[0]

    @property
    def holds_part(self) -> bool:
        """Whether it takes several ranks to compute one pack with the model's own layers."""
        return self.mesh.is_sharded or self.mesh.context > 1

    @property
    def part(self) -> int:
        """Which part of its packs' tokens is this rank's."""
        return self.mesh.place(self.rank)[1]

    @property
    def context_group(self) -> Any:
        """torch's group of the ranks that share this one's packs; None where it has them alone."""
        return self.devices["context"].get_group() if self.mesh.context > 1 else None

    @property
    def holders(self) -> Any:
        """torch's mesh of the ranks that weights are dealt to, replicas as its first dimension where there are any.

        Ranks that share packs hold weights as others do: all their gradients are summed.
        """
        within = "shard"
        if self.mesh.context > 1:
            within = "dealt"
            self.devices["shard", "context"]._flatten(within)
        return self.devices["replicate", within] if self.mesh.replicate > 1 else self.devices[within]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place; the same bits on each."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def total(self, here: float) -> float:
        """The sum of a number over all ranks."""
        return here if self.size == 1 else float(self.sum(torch.tensor([here], dtype=torch.float64)))

    def of_first(self, values: Sequence[float]) -> list[float]:
        """The first rank's numbers on all ranks: what follows from them then follows everywhere."""
        if self.size == 1:
            return list(values)
        mine = torch.tensor(values, dtype=torch.float64)
        return self.sum(mine if self.is_first else torch.zeros_like(mine)).tolist()

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank."""
        return here if self.size == 1 else bool(self.sum(torch.tensor([float(here)])).item())

    def least(self, here: float) -> float:
        """The least of all ranks' numbers."""
        if self.size == 1:
            return here
        found = torch.tensor([here], dtype=torch.float64)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return float(found)

    def tell(self, value: Any) -> Any:
        """What the first rank says, as JSON, to all."""
        if self.size == 1:
            return value
        said = bytearray(orjson.dumps(value)) if self.is_first else bytearray()
        length = torch.tensor([len(said)])
        dist.broadcast(length, 0)
        content = (
            torch.frombuffer(said, dtype=torch.uint8) if said else torch.zeros(int(length), dtype=torch.uint8)
        )
        dist.broadcast(content, 0)
        return orjson.loads(content.numpy().tobytes())

    def by_first(self, make: Callable[[], Any]) -> Any:
        """What the first rank makes, as JSON, told to all; so is an error of ours, which every rank then raises."""
        if self.size == 1:
            return make()
        said: dict[str, Any] = {}
        if self.is_first:
            try:
                said = {"made": make()}
            except BurnishError as error:
                self.tell({"kind": type(error).__name__, **error.as_dict()})
                raise
        said = self.tell(said)
        if "made" not in said:
            kind = getattr(errors, said["kind"], BurnishError)
            raise kind(said["saw"], rule=said["rule"], remedy=said["remedy"])
        return said["made"]

    @contextmanager
    def one_before_others(self, what: str) -> Iterator[None]:
        """The block is run by one rank of each node, then by the others, who find on disk what the one left.

        Waiting has no limit but the watchdog's: it may be hours of reading data.
        """
        key = f"{what}/{self.node}"
        while self.size > 1 and not self.first_of_node and not self.store.check([key]):
            time.sleep(POLL)
        yield
        if self.size > 1 and self.first_of_node:
            self.store.set(key, "done")

    def leave(self) -> None:
        """Tell the others that this rank ends in good order, and forget them."""
        if self.watchdog is not None:
            self.watchdog.leave()
        if self.owns_group:
            dist.destroy_process_group()


ALONE = Ranks()


@dataclass(frozen=True, slots=True)
class Meeting:
    """All processes of a launch, found; how they share out the work is not said yet."""

    launch: Launch
    store: Any
    watchdog: Watchdog
    owns_group: bool

    def agree(self, said: Mapping[str, Any]) -> None:
        """UsageError on every rank where one says other things than the first one does."""
        mine, store = orjson.dumps(said), self.store
        store.set(f"said/{self.launch.rank}", mine)
        if self.launch.is_first:
            others = {rank: store.get(f"said/{rank}") for rank in range(1, self.launch.size)}
            found = {
                rank: differing(said, orjson.loads(other)) for rank, other in others.items() if other != mine
            }
            store.set("disagree", orjson.dumps({str(rank): keys for rank, keys in found.items() if keys}))
        if disagree := orjson.loads(store.get("disagree")):
            rank, keys = next(iter(disagree.items()))
            raise UsageError(
                f"rank {rank} was started with another {keys[0]} than rank 0"
                + (f" (and another {', '.join(keys[1:])})" if keys[1:] else ""),
                rule="all ranks of a run have one recipe, one burnish and one torch",
                remedy="start every node with the same command, the same recipe file and the same environment",
            )

    def take_places(self, mesh: Mesh) -> Ranks:
        """This process's place in the mesh."""
        launch = self.launch
        shape = (mesh.replicate, mesh.shard, mesh.context)
        return Ranks(
            rank=launch.rank,
            mesh=mesh,
            devices=init_device_mesh(_device(), shape, mesh_dim_names=DIMENSIONS),
            store=self.store,
            node=launch.node,
            first_of_node=launch.local_rank == 0,
            of_node=launch.local_size,
            watchdog=self.watchdog,
            owns_group=self.owns_group,
        )


def meet(launch: Launch) -> Meeting:
    """Wait for all processes of a launch, and begin to watch over them."""
    if _device() == "cuda":
        torch.cuda.set_device(launch.local_rank)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    owns = not dist.is_initialized()
    if owns:
        try:
            store, rank, size = next(rendezvous("env://", timeout=LONGEST_COLLECTIVE))
            # torchrun keeps its store over a restart: ranks would call at addresses of those before them.
            store = PrefixStore(f"attempt/{launch.restarts}", store)
            backend = "gloo" if _device() == "cpu" else "cpu:gloo,cuda:nccl"
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=LONGEST_COLLECTIVE
            )
        except dist.DistError as error:
            raise _did_not_meet(launch, f"{address}:{port}", error) from error
    words = PrefixStore(
        f"burnish/{launch.restarts}", TCPStore(address, port, is_master=False, wait_for_workers=False)
    )
    watchdog = Watchdog(
        address,
        port,
        rank=launch.rank,
        size=launch.size,
        attempt=launch.restarts,
        hosts=launch.is_first and not launch.has_agent,
    )
    watchdog.start()
    return Meeting(launch, words, watchdog, owns)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names under which two mappings have different values."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _did_not_meet(launch: Launch, place: str, error: Exception) -> BurnishError:
    return BurnishError(
        f"rank {launch.rank} of {launch.size} at {place}: {str(error).strip().splitlines()[0]}",
        rule="rank 0 listens at MASTER_ADDR:MASTER_PORT, which nobody else has, and the other ranks reach it there",
        remedy="take another --master-port (29500 is torchrun's own), and look whether a firewall lets nodes meet",
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
