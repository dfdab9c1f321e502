"""Two processes under two host names build one store."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import conversation, write_jsonl

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "two_hosts.py"


@pytest.mark.slow
def test_the_store_of_two_hosts_is_that_of_one(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("two_hosts", FILE)
    assert spec is not None and spec.loader is not None
    two_hosts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(two_hosts)
    if not two_hosts.permitted():
        pytest.skip("a host name of one's own is not permitted here")
    data = write_jsonl(tmp_path / "rows.jsonl", [conversation(k) for k in range(120)])
    found = two_hosts.study(data, tmp_path, 13)
    assert found["hosts"] == ["alpha", "beta", "gamma"]
    assert found["segments"] == 10 and found["identical"]
