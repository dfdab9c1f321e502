"""The same under Ray Train: its workers have RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as torchrun's have.

python docs/distributed/ray_train.py recipe.yaml data_parallel=hybrid
"""

from __future__ import annotations

import sys
from typing import Any


def rank(config: dict[str, Any]) -> None:
    """One rank: what `torchrun -m burnish train` runs in each process."""
    from burnish.recipe.load import load_recipe
    from burnish.training.run import train

    train(load_recipe(config["recipe"], config["overrides"]))


def main() -> None:
    """Sixteen workers with a GPU each; a failed one has all of them started again."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    recipe, *overrides = sys.argv[1:]
    TorchTrainer(
        rank,
        train_loop_config={"recipe": recipe, "overrides": overrides},
        scaling_config=ScalingConfig(num_workers=16, use_gpu=True),
        run_config=RunConfig(name="burnish", failure_config=FailureConfig(max_failures=3)),
    ).fit()


if __name__ == "__main__":
    main()
