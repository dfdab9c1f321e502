"""The experiment on selection, small: every arm trains, and its interval is Student's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.experiments import selection
from tests.conftest import conversation, write_jsonl


def test_the_interval_of_paired_differences() -> None:
    found = selection.paired_interval([1.0, 2.0, 3.0], [0.0, 1.5, 1.5])
    assert found["mean"] == pytest.approx(1.0)
    assert found["high"] - found["mean"] == pytest.approx(4.303 * 0.5 / 3**0.5)


@pytest.mark.slow
def test_all_arms_train_on_as_many_rows(
    tmp_path: Path, model_directory: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [conversation(k) for k in range(60)])
    monkeypatch.setattr(selection, "HELD_OUT", 10)
    monkeypatch.setitem(selection.TRAINING, "num_epochs", 1)
    arms = ["random", "diverse", "selected"]
    found = selection.measure(str(data), str(model_directory()), seeds=[0, 1], number=20, arms=arms)
    assert set(found["differences"]) == {"selected - diverse", "selected - random", "diverse - random"}
    assert all(len(losses) == 2 and min(losses) > 0 for losses in found["held_out_loss"].values())
