"""What changed between the recipe of a run and the one it is resumed with: nothing may, unseen.

refuse_drift(saved, asked)                              UsageError: learning_rate: 0.0002, was 2e-05
refuse_drift(saved, asked, allow=["learning_rate"])     passes, and returns the changes to be logged
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from burnish.errors import UsageError
from burnish.recipe.schema import Recipe
from burnish.recipe.words import show


@dataclass(frozen=True)
class Change:
    """One key that two recipes disagree on."""

    key: str
    saved: Any
    asked: Any

    def __str__(self) -> str:
        return f"{self.key}: {show(self.asked)}, was {show(self.saved)}"


def changes_between(saved: Recipe, asked: Recipe) -> list[Change]:
    """The keys whose values differ, in the schema's order."""
    before, after = saved.model_dump(mode="json"), asked.model_dump(mode="json")
    return [Change(key, before[key], after[key]) for key in Recipe.model_fields if before[key] != after[key]]


def refuse_drift(saved: Recipe, asked: Recipe, *, allow: Collection[str] = ()) -> list[Change]:
    """Raise if a key changed that `allow` does not list; return the changes that were allowed."""
    changes = changes_between(saved, asked)
    unseen = [change for change in changes if change.key not in allow]
    if unseen:
        keys = ",".join(change.key for change in unseen)
        raise UsageError(
            "; ".join(str(change) for change in unseen),
            rule="a resumed run is the same run: its recipe is the one it was started with",
            remedy=f"resume without the change, or say --allow-change={keys}",
        )
    return changes
