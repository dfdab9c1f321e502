"""What a recipe asks for that ranks with parts of a model cannot do: refused before any of them is started.

Nothing here imports torch.
"""

from __future__ import annotations

from burnish.errors import UsageError
from burnish.parallel.mesh import Mesh, derive_mesh
from burnish.recipe.choices import Adapter, Optimizer
from burnish.recipe.schema import Recipe

ELEMENTWISE = frozenset({Optimizer.ADAMW, Optimizer.SGD})
"""Optimisers that look at one number at a time."""


def mesh_of(recipe: Recipe, ranks: int, *, per_node: int | None = None) -> Mesh:
    """The mesh of so many ranks under a recipe's values; UsageError where it cannot have them."""
    mesh = derive_mesh(
        ranks,
        data_parallel=recipe.data_parallel.value,
        context_parallel=recipe.context_parallel,
        per_node=per_node,
    )
    refuse(recipe, mesh)
    return mesh


def refuse(recipe: Recipe, mesh: Mesh) -> None:
    """UsageError for what needs more of a model than a rank of the mesh holds."""
    if recipe.forgetting is not None and (mesh.is_sharded or mesh.context > 1):
        raise UsageError(
            f"forgetting, and {mesh}",
            rule="the guard reads hidden states and the head of base and model, which lie on several ranks here",
            remedy="say data_parallel=replicate and context_parallel=1, or leave forgetting out",
        )
    if mesh.is_sharded and recipe.adapter is Adapter.QDORA:
        raise UsageError(
            f"adapter: {recipe.adapter}, and {mesh}",
            rule="DoRA's magnitudes start from whole matrices, and a rank has its part of one in 4 bits",
            remedy="say adapter=qlora, or data_parallel=replicate (a base in 4 bits is small)",
        )
    if mesh.is_sharded and recipe.optimizer not in ELEMENTWISE:
        raise UsageError(
            f"optimizer: {recipe.optimizer}, and {mesh}",
            rule=f"{recipe.optimizer} needs whole matrices, or blocks of them that hang on no number of ranks",
            remedy="say optimizer=adamw, or data_parallel=replicate",
        )
