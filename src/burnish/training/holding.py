"""What one rank holds: its share of weights, masters, gradients and moments, and what it gathers for a moment.

Full tuning of 8B in bf16 over 8 ranks: masters, gradients and moments 16 bytes x 8e9 / 8 = 16 GB, three layers
and the tables whole in bf16 3.4 GB, a layer's gradient 1.3 GB; activations as on one device.
"""

from __future__ import annotations

from dataclasses import replace

from burnish.models.anatomy import Anatomy
from burnish.parallel.hardware import CONTEXT_BYTES
from burnish.parallel.mesh import Mesh
from burnish.recipe.choices import Adapter, DType
from burnish.recipe.methods import METHODS
from burnish.recipe.schema import Recipe
from burnish.training.forecast import FOUR_BITS, RESERVE, Memory, memory_of

STATES = ("weights", "masters", "gradients", "optimizer")


def rank_memory(
    recipe: Recipe,
    anatomy: Anatomy,
    mesh: Mesh,
    *,
    trained: int,
    pack_tokens: int,
    process: float = CONTEXT_BYTES,
) -> tuple[Memory, float]:
    """Bytes by part on one rank's device, and those of it that `cpu_offload` puts into its host's memory."""
    tokens = -(-pack_tokens // mesh.context)
    whole = memory_of(recipe, anatomy, trained=trained, pack_tokens=tokens, process=process)
    if mesh.context > 1:
        # The rows that are here, those that come, and in fp32 the gradients of both.
        rows = 2 * anatomy.key_value_width * tokens
        whole = replace(whole, activations=whole.activations + rows * (2 * width_of(recipe) + 2 * 4))
    if not mesh.is_sharded:
        return whole, 0.0
    states = {name: getattr(whole, name) / mesh.holders for name in STATES}
    if recipe.adapter == Adapter.FULL:  # gathered weights are cast from the masters: there is no other copy
        states["weights"] = 0.0 if whole.masters else states["weights"]
    host = sum(states.values()) if recipe.cpu_offload else 0.0
    if recipe.cpu_offload:
        states = dict.fromkeys(states, 0.0)
    states["weights"] += gathered(recipe, anatomy, trained)
    return replace(whole, **states), RESERVE * host


def gathered(recipe: Recipe, anatomy: Anatomy, trained: int) -> float:
    """Bytes of what a rank holds whole for a moment: a layer, the next one, the buffer in which it comes, the tables.

    And the gradient of one layer, beside the fp32 buffer from which its shares are sent off.
    """
    layer, width = anatomy.layer_parameters / anatomy.layers, width_of(recipe)
    held = FOUR_BITS if METHODS[recipe.adapter].quantised else width
    tables = anatomy.parameters - anatomy.layer_parameters
    gradient = layer if recipe.adapter == Adapter.FULL else trained / anatomy.layers
    return 3 * layer * held + tables * width + (width + 4) * gradient


def with_checkpointing(
    recipe: Recipe, anatomy: Anatomy, mesh: Mesh, *, trained: int, pack_tokens: int, room: float
) -> Recipe:
    """The recipe with `gradient_checkpointing: auto` decided: on where a step without it needs more than `room` bytes.

    It depends on the whole of a device's memory and not on what is free, so that a resumed run decides alike.
    """
    if recipe.gradient_checkpointing != "auto":
        return recipe
    needed, _ = rank_memory(recipe, anatomy, mesh, trained=trained, pack_tokens=pack_tokens)
    return recipe.model_copy(update={"gradient_checkpointing": needed.total > room})


def width_of(recipe: Recipe) -> int:
    """Bytes of a number in the precision in which a run computes."""
    return 2 if recipe.dtype == DType.BFLOAT16 else 4
