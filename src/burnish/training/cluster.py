"""What one rank of several holds, sends and waits for, from arithmetic.

    replicate          everything, on every rank; gradients are summed once a step
    shard              1/N of weights, masters, gradients, moments; weights are gathered layer by layer, twice a pass
    hybrid             the same within a node, gradients summed across nodes: 1/8 each on nodes of 8
    cpu_offload        that share lies in the host's memory, and crosses the bus at every gathering
    context_parallel   1/N of a pack's activations; keys and values go round once a layer and pass, and back

70B, full tuning, 8 x 80 GB: 18 bytes x 70e9 / 8 = 159 GB a rank before a token is fed, so no value but more devices or
an adapter helps; 16 devices have 79 GB each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from burnish.errors import UsageError
from burnish.models.anatomy import Anatomy
from burnish.parallel.hardware import ACCELERATORS, BUS, HOST_RATE, NETWORK, TYPICAL_SHARE, Accelerator
from burnish.parallel.mesh import Mesh, derive_mesh
from burnish.recipe.choices import Adapter, DataParallel
from burnish.recipe.schema import Recipe
from burnish.training.forecast import GB, Forecast, Memory, Work, memory_of, operations
from burnish.training.holding import rank_memory, width_of

SAID = re.compile(r"(?:(?P<nodes>\d+)x)?(?P<devices>\d+)x(?P<name>[A-Z0-9]+(?:-\d+G)?)", re.IGNORECASE)
MOST_NAMED = 4
UPDATE_BYTES = 28
"""What AdamW on a host reads and writes of a parameter: master, gradient and two moments in, all but one out."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """So many devices on each of so many nodes."""

    accelerator: Accelerator
    per_node: int
    nodes: int = 1

    @property
    def devices(self) -> int:
        """All of them; one rank each."""
        return self.per_node * self.nodes

    def __str__(self) -> str:
        each = f"{self.per_node} x {self.accelerator.name}"
        return each if self.nodes == 1 else f"{self.nodes} nodes of {each}"

    def link(self, first: int, count: int) -> float:
        """Bytes a second between `count` ranks whose numbers are `first` apart."""
        return self.accelerator.link if first * count <= self.per_node else NETWORK


@dataclass(frozen=True, slots=True)
class RankForecast:
    """One rank's bytes by part, its node's host memory, and seconds of a step: computing, and sending by purpose."""

    mesh: Mesh
    memory: Memory
    host: float
    computing: float
    sending: dict[str, float]

    @property
    def step(self) -> float:
        """Seconds of a step. Gathering and the ring go on while layers are computed; the rest waits for them."""
        behind = self.sending["gathering"] + self.sending["ring"]
        return max(self.computing, behind) + self.sending["summing"] + self.sending["offload"]

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "mesh": {name: getattr(self.mesh, name) for name in ("replicate", "shard", "context")},
            "memory": {name: round(value) for name, value in asdict(self.memory).items()},
            "needed_bytes": round(self.memory.total),
            "host_bytes_a_node": round(self.host),
            "seconds_a_step": self.step,
            "seconds_computing": self.computing,
            "seconds_sending": self.sending,
        }


def read_cluster(said: str) -> Cluster:
    """`8xH100-80G`, `1x4090`, `2x8xA100-80G` (two nodes of eight); UsageError for anything else."""
    match = SAID.fullmatch(said.strip())
    if match is None or not int(match["devices"]) * int(match["nodes"] or 1):
        raise UsageError(
            f"devices {said!r}",
            rule="devices are said as a count and a name, with nodes before them: 8xH100-80G, 2x8xH100-80G",
            remedy=f"names are {', '.join(ACCELERATORS)}",
        )
    return Cluster(accelerator_named(match["name"]), int(match["devices"]), int(match["nodes"] or 1))


def accelerator_named(said: str) -> Accelerator:
    """An accelerator of the table, with its memory in the name (`H100-80G`) or without."""
    for name, accelerator in ACCELERATORS.items():
        if said.lower() in (name.lower(), f"{name}-{accelerator.memory / 1e9:.0f}G".lower()):
            return accelerator
    raise UsageError(
        f"hardware {said!r}",
        rule="hardware that is not at hand is named from a table",
        remedy=f"name one of {', '.join(ACCELERATORS)}; without --hardware this machine is measured",
    )


def on_cluster(cluster: Cluster, recipe: Recipe, anatomy: Anatomy, *, trained: int, work: Work) -> Forecast:
    """A run's forecast on devices that are not at hand, one rank each, as the recipe shares it out."""
    rank = rank_forecast(cluster, recipe, anatomy, trained=trained, work=work)
    return Forecast(
        anatomy=anatomy,
        trained=trained,
        work=work,
        memory=rank.memory,
        operations=operations(recipe, anatomy, work),
        device=cluster.accelerator.name,
        device_memory=cluster.accelerator.memory,
        devices=cluster.devices,
        rate=TYPICAL_SHARE * cluster.accelerator.bf16,
        measured=None,
        waiting=(rank.step - rank.computing) * work.steps,
    )


def rank_forecast(
    cluster: Cluster, recipe: Recipe, anatomy: Anatomy, *, trained: int, work: Work
) -> RankForecast:
    """One rank's memory and time under the recipe's values."""
    if recipe.adapter is Adapter.QDORA and recipe.data_parallel is not DataParallel.REPLICATE:
        raise UsageError(
            f"adapter: {recipe.adapter}, data_parallel: {recipe.data_parallel}",
            rule="DoRA over a base in 4 bits needs whole matrices",
            remedy="adapter=qlora, or data_parallel=replicate: such a base is small",
        )
    mesh = derive_mesh(
        cluster.devices,
        data_parallel=recipe.data_parallel.value,
        context_parallel=recipe.context_parallel,
        per_node=cluster.per_node,
    )
    memory, host = rank_memory(recipe, anatomy, mesh, trained=trained, pack_tokens=work.pack_tokens)
    computing = operations(recipe, anatomy, work) / (
        work.steps * TYPICAL_SHARE * cluster.accelerator.bf16 * cluster.devices
    )
    sending = _sending(cluster, recipe, anatomy, mesh, trained, work)
    return RankForecast(mesh, memory, host * cluster.per_node, computing, sending)


def ring_bytes(anatomy: Anatomy, *, tokens: int, ranks: int, width: int, again: bool = False) -> float:
    """Bytes that each rank of a ring sends for one pack: keys and values forwards, they and gradients backwards."""
    rows = 2.0 * anatomy.key_value_width * anatomy.layers * tokens / ranks
    return rows * ((ranks - 1) * width * (3 if again else 2) + ranks * 4)


def _sending(
    cluster: Cluster, recipe: Recipe, anatomy: Anatomy, mesh: Mesh, trained: int, work: Work
) -> dict[str, float]:
    """Seconds of a step that a rank's link is busy, by purpose."""
    passes = max(1.0, work.computed_tokens / work.steps / work.pack_tokens / mesh.data)
    weights = memory_of(recipe, anatomy, trained=trained, pack_tokens=1).weights
    holders = mesh.holders if mesh.is_sharded else 1
    share, copies = 1 / holders, mesh.size // holders
    gathering = offload = ring = 0.0
    if holders > 1:
        sent = (2 * weights + 4 * trained) * (holders - 1) / holders * passes
        gathering = sent / cluster.link(1, holders)
    summing = 4 * trained * share * 2 * (copies - 1) / copies / cluster.link(holders, copies)
    if holders > 1 and recipe.cpu_offload:
        crossing = (2 * weights + 4 * trained) * share * passes / BUS
        offload = crossing + trained * share * UPDATE_BYTES / HOST_RATE
    if mesh.context > 1:
        sent = ring_bytes(
            anatomy,
            tokens=work.pack_tokens,
            ranks=mesh.context,
            width=width_of(recipe),
            again=recipe.gradient_checkpointing is True,
        )
        ring = sent * passes / cluster.link(1, mesh.context)
    return {"gathering": gathering, "ring": ring, "summing": summing, "offload": offload}


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to share a run out: the keys that differ from the recipe's, and what they come to."""

    keys: dict[str, Any]
    forecast: RankForecast
    fits: bool

    @property
    def name(self) -> str:
        """As one says it on the command line; `as the recipe says` where nothing differs."""
        said = [f"{key}={str(value).lower()}" for key, value in self.keys.items()]
        return " ".join(said) or "as the recipe says"


def choices(cluster: Cluster, recipe: Recipe, anatomy: Anatomy, *, trained: int, work: Work) -> list[Choice]:
    """The recipe's own way first, then the others that these devices allow."""
    found = []
    for keys in ({}, *_other_keys(cluster, recipe)):
        asked = recipe.model_copy(update=keys)
        try:
            forecast = rank_forecast(cluster, asked, anatomy, trained=trained, work=work)
        except UsageError:  # a mesh that these devices do not make
            continue
        fits = forecast.memory.total <= cluster.accelerator.memory
        found.append(
            Choice({key: getattr(value, "value", value) for key, value in keys.items()}, forecast, fits)
        )
    return found


def changes(cluster: Cluster, ways: Sequence[Choice], forecast: Forecast, recipe: Recipe) -> Iterator[str]:
    """What to say of a run that does not fit: the ways that do, quickest first, or what would."""
    own = ways[0]
    if own.fits:
        return
    anatomy, room = forecast.anatomy, cluster.accelerator.memory
    yield f"{own.forecast.memory.total / GB:,.1f} GB are needed on each device and {room / GB:,.1f} GB are there"
    fitting = sorted((way for way in ways if way.fits), key=lambda way: way.forecast.step)
    for way in fitting[:MOST_NAMED]:
        host = f", {way.forecast.host / GB:,.0f} GB of each host" if way.forecast.host else ""
        yield f"{way.name}: {way.forecast.memory.total / GB:,.1f} GB a device{host}, {way.forecast.step:,.2f} s a step"
    if any(not way.forecast.host for way in fitting):
        return
    if recipe.adapter == Adapter.FULL:
        lora = recipe.model_copy(update={"adapter": Adapter.LORA})
        trained = anatomy.lora_parameters(recipe.lora_r)
        ways = choices(cluster, lora, anatomy, trained=trained, work=forecast.work)
        least = min(ways, key=lambda way: way.forecast.memory.total)
        said = "adapter=lora" if not least.keys else f"adapter=lora {least.name}"
        verdict = "fits" if least.fits else "does not fit yet"
        yield f"{said}: {least.forecast.memory.total / GB:,.1f} GB a device, which {verdict}"
    if enough := _enough(cluster, forecast, recipe):
        yield f"data_parallel=shard gradient_checkpointing=true on {enough} such devices fits"


def _enough(cluster: Cluster, forecast: Forecast, recipe: Recipe) -> int | None:
    """How many devices have room for the run when everything is dealt; None where ever more do not help."""
    if recipe.adapter is Adapter.QDORA:
        return None
    asked = recipe.model_copy(update={"gradient_checkpointing": True})
    for devices in (1 << power for power in range(1, 13)):
        mesh = Mesh(shard=devices, deals=True)
        memory, _ = rank_memory(
            asked, forecast.anatomy, mesh, trained=forecast.trained, pack_tokens=forecast.work.pack_tokens
        )
        if memory.total <= cluster.accelerator.memory:
            return devices
    return None


def _other_keys(cluster: Cluster, recipe: Recipe) -> Iterator[dict[str, Any]]:
    recomputes = {} if recipe.gradient_checkpointing is True else {"gradient_checkpointing": True}
    if recomputes:
        yield recomputes
    if cluster.devices == 1:
        return
    for kind in DataParallel:
        if kind is DataParallel.HYBRID and cluster.nodes == 1:
            continue
        if kind is not recipe.data_parallel:
            yield {"data_parallel": kind}
        if recomputes:
            yield {"data_parallel": kind, **recomputes}
    yield {"data_parallel": DataParallel.SHARD, "cpu_offload": True, **recomputes}
    for ranks in (2, 4, 8):
        if ranks <= cluster.per_node and ranks != recipe.context_parallel:
            yield {"data_parallel": DataParallel.SHARD, "context_parallel": ranks, **recomputes}
