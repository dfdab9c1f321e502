"""Distillation against burnish's own server: stopped and run again, it asks for no answer twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from burnish.serving.app import Desk
from tests.serving.conftest import Running

PROGRAM = [sys.executable, "-c", "from burnish.__main__ import main; main()"]


def test_a_run_against_the_server_is_stopped_and_goes_on_without_asking_twice(
    marble: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    enough = threading.Event()
    chat = Desk.chat

    def counted(self: Desk, body: bytes) -> object:
        asked[json.loads(body)["messages"][-1]["content"]] += 1
        if asked.total() >= 6:
            enough.set()
        time.sleep(0.02)  # so that the run is still at work when it is told to stop
        return chat(self, body)

    monkeypatch.setattr(Desk, "chat", counted)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"What is the capital of land {k}?\n" for k in range(30)))
    out = tmp_path / "out.jsonl"
    words = [
        "data",
        "synth",
        str(prompts),
        "--out",
        str(out),
        "--teacher",
        "marble",
        "--endpoint",
        marble.url,
    ]
    command = [*PROGRAM, *words, "--max-tokens", "12", "--concurrency", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert enough.wait(60)
        first.send_signal(signal.SIGTERM)
        first.communicate()
    assert first.returncode != 0 and 6 <= asked.total() < 30
    again = subprocess.run(command, capture_output=True, text=True)
    assert len(asked) == 30 and set(asked.values()) == {1}, again.stderr
    # A base that was never taught to stop gives answers that are cut: all are kept, and none becomes a row.
    lines = (tmp_path / "out.jsonl.answers" / "answers.jsonl").read_text().splitlines()
    answers = [line for line in map(json.loads, lines) if "text" in line]
    assert len(answers) == 30 and {line["finish_reason"] for line in answers} == {"length"}
    assert again.returncode == 3 and "nothing is paid for twice" in again.stdout
