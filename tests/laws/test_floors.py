"""A folder imports only from floors below it; lazy imports inside functions count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "burnish"

FLOORS = (  # from the roof down; folders of one floor do not import each other
    {"__main__"},
    {"cli", "studio"},
    {"report", "serving", "export"},
    {"experiments"},
    {"evaluation"},
    {"training", "preference"},
    {"models", "optim", "checkpoint", "parallel"},
    {"adapters"},  # a model that is loaded may bring an adapter
    {"losses", "marble"},  # the forward pass grades, and models know where the embedded weights lie
    {"kernels"},
    {"curation"},  # reads rows as training does
    {"data"},
    {"chat"},
    {"recipe"},
    {"cache", "errors", "types"},
)
HEIGHT = {folder: height for height, folders in enumerate(reversed(FLOORS)) for folder in folders}


def imported_folders(source: str, module: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """The line and the top folder of every import of burnish's own, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(module[: len(module) - node.level]) if node.level else ""
            origin = ".".join(part for part in (package, node.module or "") if part)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "burnish" and len(parts) > 1:
                yield node.lineno, parts[1]


def violations(source: str, path: Path) -> list[str]:
    """What a file imports from its own floor (another folder) or from above."""
    module = ("burnish", *path.with_suffix("").parts)
    folder = module[1]
    return [
        f"{path}:{line}: {folder} (floor {HEIGHT[folder]}) imports {other} (floor {HEIGHT[other]})"
        for line, other in imported_folders(source, module)
        if other != folder and HEIGHT[other] >= HEIGHT[folder]
    ]


def files() -> list[Path]:
    return sorted(
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" or path.parent != PACKAGE
    )


def test_every_folder_has_a_floor() -> None:
    assert {path.parts[0].removesuffix(".py") for path in files()} <= HEIGHT.keys()


def test_no_folder_imports_from_its_own_floor_or_above() -> None:
    found = [each for path in files() for each in violations((PACKAGE / path).read_text(), path)]
    assert not found, "\n".join(found)


def test_a_lazy_or_relative_import_from_above_is_seen() -> None:
    lazy = "def load():\n    from burnish.training.loop import train\n"
    assert violations(lazy, Path("recipe/load.py")) == [
        "recipe/load.py:2: recipe (floor 1) imports training (floor 9)"
    ]
    assert violations("from ..cli import app\n", Path("recipe/load.py"))
    assert violations("import burnish.curation.flow\n", Path("data/read.py"))
    assert not violations("from burnish.recipe.schema import Recipe\n", Path("data/read.py"))
