"""Every setting does something: a key of the recipe that no code reads is a promise not kept."""

from __future__ import annotations

import ast
from pathlib import Path

from burnish.recipe.schema import DatasetSource, Recipe

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "burnish"


def attributes_read(source: str) -> set[str]:
    """Every name that is read as an attribute: `recipe.lora_r` reads `lora_r`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_key_of_the_recipe_is_read_outside_the_recipe_folder() -> None:
    read: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] != "recipe":
            read |= attributes_read(path.read_text())
    keys = [*Recipe.model_fields, *DatasetSource.model_fields]
    assert [key for key in keys if key not in read] == []


def test_assigning_is_not_reading() -> None:
    assert attributes_read("a.seed = 1\nprint(b.dtype)\n") == {"dtype"}
