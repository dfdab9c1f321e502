"""The README's tree is the tree on disk, and the commands it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from burnish.cli.app import VERBS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = re.search(r"```tree\n(.*?)```", README, re.DOTALL)


def listed() -> set[str]:
    assert TREE is not None
    return {line.split()[0].rstrip("/") for line in TREE[1].splitlines() if line.strip()}


def test_every_folder_of_the_tree_is_on_disk_and_every_folder_on_disk_is_in_the_tree() -> None:
    package = ROOT / "src" / "burnish"
    on_disk = {f"src/burnish/{path.name}" for path in package.iterdir() if (path / "__init__.py").exists()}
    on_disk |= {"tests", "recipes", "benchmarks", "docs"}
    assert listed() == on_disk


def test_every_verb_that_exists_is_named_and_no_other() -> None:
    named = set(re.findall(r"`burnish (\w+)", README))
    assert set(VERBS) == named


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
