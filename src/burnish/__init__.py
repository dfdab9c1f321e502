"""burnish: supervised fine-tuning that proves what it grades.

import burnish
run = burnish.train("recipe.yaml", learning_rate=1e-4)
run = burnish.train(model="marble", datasets=["data/train.jsonl"])
run.final, run.eval_loss, run.rows
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from burnish.training.run import RunResult

__all__ = ["__version__", "resume", "train"]
__version__ = "0.1.0"

# Where bitsandbytes is installed, peft imports it, and it warns of an optional kernel that nothing here uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def train(recipe: str | Path | None = None, /, **keys: Any) -> RunResult:
    """Train by a recipe file, by keys, or by a file with some keys overridden; returns the finished run.

    Raises BurnishError (burnish.errors), whose text says what was seen, the rule and the remedy.
    """
    from burnish.training import run  # torch is imported only where a run begins

    return run.train(run.as_recipe(recipe, keys))


def resume(run_directory: str | Path) -> RunResult:
    """Go on with an interrupted run from its newest whole checkpoint."""
    from burnish.training import run  # as above

    return run.resume(run_directory)
