"""`burnish winrate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.test_win_rate import write, write_world
from tests.evaluation.worlds import World


def test_the_command_prints_percents_by_model(burnish: Any, tmp_path: Path) -> None:
    world = World(seed=3, num_models=6, num_prompts=200)
    preferences, lengths = write_world(world, tmp_path)
    ran = burnish("winrate", "--preferences", str(preferences), "--lengths", str(lengths), "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert list(found) == world.names
    for m, name in enumerate(world.names):
        assert set(found[name]) == {"win_rate", "ci", "length_controlled_win_rate"}
        assert found[name]["win_rate"] == pytest.approx(100 * world.wins[:, m].mean(), abs=1e-9)
        low, high = found[name]["ci"]
        assert low <= found[name]["win_rate"] <= high
    assert found["gpt_verbose"]["length_controlled_win_rate"] < found["gpt_verbose"]["win_rate"]
    assert found["gpt_concise"]["length_controlled_win_rate"] > found["gpt_concise"]["win_rate"]

    difficulty = write(
        tmp_path / "d.csv", "index,difficulty\n" + "\n".join(f"{k},{v}" for k, v in enumerate(world.ease))
    )
    words = (
        "winrate",
        "--preferences",
        str(preferences),
        "--lengths",
        str(lengths),
        "--difficulty",
        str(difficulty),
    )
    shown = burnish(*words, "--against", "model-0")
    assert shown.code == 0, shown.err
    assert "gpt_verbose" in shown.out and "against model-0" in shown.out
    assert burnish("winrate", "--preferences", str(preferences), "--difficulty", str(difficulty)).code == 2
