"""The demo as a new user runs it; slow, for it really trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_the_demo_shows_a_base_becoming_an_assistant_within_three_minutes(
    burnish: Any, tmp_path: Path
) -> None:
    ran = burnish("demo", "--output-dir", str(tmp_path), "--json")
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out.strip().splitlines()[-1])
    assert figures["base_answers_and_stops"] < 0.05
    assert figures["unseen_exact_match"] >= 0.9
    assert figures["stop_rate"] >= 0.99
    assert Path(figures["run"]).is_dir()
    assert (Path(figures["run"]) / "final" / "model.safetensors").exists()
    assert "-ln p" in ran.err
