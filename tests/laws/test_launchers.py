"""The launchers' examples are read as their launchers would read them."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
import yaml

from burnish.recipe.load import load_recipe

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "distributed"


def commands(value: object) -> list[list[str]]:
    """Every `command` in a document."""
    if isinstance(value, dict):
        own = [value["command"]] if isinstance(value.get("command"), list) else []
        return own + [found for each in value.values() for found in commands(each)]
    return [found for each in value for found in commands(each)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", ["pytorchjob.yaml", "trainjob.yaml"])
def test_manifests_are_yaml_and_start_burnish_with_keys_that_it_knows(name: str, tmp_path: Path) -> None:
    document = yaml.safe_load((FOLDER / name).read_text())
    assert {"apiVersion", "kind", "metadata", "spec"} <= document.keys()
    found = commands(document)
    assert found
    for command in found:
        assert command[:4] == ["torchrun", "-m", "burnish", "train"]
        _loads(command[5:], tmp_path)


def _loads(overrides: list[str], tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: marble\ndatasets: {data}\n")
    assert load_recipe(recipe, overrides).recipe.data_parallel == "hybrid"


def test_the_slurm_script_is_bash() -> None:
    script = FOLDER / "slurm.sh"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "-m burnish train" in script.read_text()


def test_the_slurm_script_starts_one_torchrun_a_node_with_what_it_was_given(tmp_path: Path) -> None:
    """SLURM's own commands stand in: `srun` runs what it is told twice, as it would on two nodes."""
    stand_ins = {
        "scontrol": "for node in a b {1..9999}; do echo node-$node; done",  # more than a pipe holds
        "srun": 'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "torchrun": 'printf "%s\\n" "$*"',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    said = {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", str(FOLDER / "slurm.sh"), "a b.yaml", "data_parallel=hybrid"],
        env={**said, "PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [f"--node-rank={node}" in line for node, line in enumerate(lines)] == [True, True]
    assert all("--rdzv-endpoint=node-a:29500" in line for line in lines)
    assert all(line.endswith("-m burnish train a b.yaml data_parallel=hybrid") for line in lines)


def test_the_ray_script_is_python_and_calls_what_there_is() -> None:
    tree = ast.parse((FOLDER / "ray_train.py").read_text())
    ours = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("burnish")
        for alias in node.names
    ]
    assert ours == [("burnish.recipe.load", "load_recipe"), ("burnish.training.run", "train")]
    from importlib import import_module

    assert all(hasattr(import_module(module), name) for module, name in ours)
