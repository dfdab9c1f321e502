"""The doctor reports what is there, and says in words what to mind."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from burnish.cli import machine
from burnish.cli.doctor import findings


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the doctor opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_json_is_one_line_with_every_part(burnish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary_canary_canary")
    ran = burnish("doctor", "--json")
    facts = json.loads(ran.out)
    assert ran.code == 0
    assert facts["devices"][-1]["gflops"].keys() == {"float32", "bfloat16"}
    assert facts["packages"]["torch"]
    assert facts["hub"]["reachable"] == "not tried"
    assert facts["findings"]
    assert "canary" not in ran.out


def test_people_get_a_table_and_findings(burnish: Any) -> None:
    out = burnish("doctor").out
    assert "GFLOP/s" in out
    assert "- training runs on" in out


def facts(**changes: Any) -> dict[str, Any]:
    sound: dict[str, Any] = {
        "packages": dict.fromkeys(machine.CORE, "1.0"),
        "devices": [{"device": "cuda:0", "gflops": {"float32": 1.0, "bfloat16": 2.0}}],
        "cpu": {"threads": 8, "cores": 8},
        "memory_gib": {"available": 64.0},
        "disk_free_gib": 500.0,
        "hub": {"HF_HUB_OFFLINE": None},
    }
    return {**sound, **changes}


def test_a_sound_machine_has_one_finding() -> None:
    assert list(findings(facts())) == [
        "training runs on cuda:0; bfloat16 is the faster precision on it: dtype: bfloat16"
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"packages": {**dict.fromkeys(machine.CORE, "1.0"), "torch": None}, "devices": []},
            "pip install torch",
        ),
        ({"devices": []}, "cannot be imported"),
        ({"devices": [{"device": "cpu", "gflops": {"float32": 2.0, "bfloat16": 1.0}}]}, "dtype: float32"),
        ({"memory_gib": {"available": 1.0}}, "of memory free"),
        ({"disk_free_gib": 1.0}, "of disk free"),
        ({"hub": {"HF_HUB_OFFLINE": "1"}}, "HF_HUB_OFFLINE is set"),
        (
            {
                "devices": [{"device": "cpu", "gflops": {"float32": 2.0, "bfloat16": 1.0}}],
                "cpu": {"threads": 1, "cores": 8},
            },
            "1 of 8 cores",
        ),
    ],
)
def test_what_is_amiss_is_said(changes: dict[str, Any], words: str) -> None:
    assert any(words in finding for finding in findings(facts(**changes)))
