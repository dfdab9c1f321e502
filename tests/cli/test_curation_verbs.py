"""`burnish data score | select | bias | synth` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Burnish
from tests.conftest import conversation, write_jsonl
from tests.curation import biased
from tests.curation.stub import last_said, stub_endpoint


def test_the_verb_reports_what_was_planted(burnish: Burnish, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", biased.always_a(biased.balanced(1)))
    ran = burnish("data", "bias", str(data), "--json")
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    assert told["biases"] == ["position:A"] and told["rows"] == 500
    finding = told["findings"][0]
    assert finding["rate"] == 1.0 and finding["baseline"] == 0.25 and len(finding["examples"]) == 3
