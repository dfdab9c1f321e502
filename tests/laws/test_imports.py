"""What must be quick never imports what is slow."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "peft", "numpy", "pandas", "pyarrow")


def modules_after(code: str) -> set[str]:
    """The top-level modules that are loaded after some code has run in a fresh interpreter."""
    program = (
        f"import sys\n{code}\nprint('\\nLOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.rsplit("LOADED", 1)[1].split())


@pytest.mark.parametrize(
    "code",
    [
        "from burnish.__main__ import run\nassert run(['--help']) == 0",
        "from burnish.__main__ import run\nassert run(['runs', '--help']) == 0",
        "import burnish.errors, burnish.types",
        "import burnish.recipe.load, burnish.recipe.describe, burnish.recipe.advice, burnish.recipe.drift",
    ],
)
def test_help_and_recipe_load_nothing_heavy(code: str) -> None:
    assert not modules_after(code) & set(HEAVY)


def test_the_check_sees_a_heavy_module() -> None:
    assert "numpy" in modules_after("import numpy")
