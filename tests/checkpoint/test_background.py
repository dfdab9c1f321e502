"""A checkpoint written by a thread holds the numbers of the moment at which it was begun."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from burnish.checkpoint import files
from burnish.checkpoint.background import Writer
from burnish.checkpoint.files import Checkpoint, list_checkpoints, load_checkpoint
from burnish.errors import Diverged


def test_what_is_saved_is_the_moment_of_the_call_however_training_goes_on(tmp_path: Path) -> None:
    weight = torch.zeros(4)
    may_write, done = threading.Event(), []
    writer = Writer(tmp_path)
    writer.begin(
        Checkpoint(1, {"w": weight}, {}, {}),
        copy=True,
        before=lambda: may_write.wait(10) and None,
        after=lambda: done.append(1),
    )
    weight += 1
    assert writer.done() is None and not list_checkpoints(tmp_path)
    may_write.set()
    saved = writer.wait()
    assert saved is not None and done == [1]
    assert torch.equal(load_checkpoint(saved[1]).weights["w"], torch.zeros(4))
    assert writer.wait() is None
    writer.close()


def test_what_goes_wrong_in_the_thread_is_raised_where_training_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path)
    bad = Checkpoint(7, {"w": torch.tensor([1.0, float("nan")])}, {}, {})
    writer.begin(bad, copy=True, before=lambda: None, after=lambda: None)
    with pytest.raises(Diverged, match="step 7: w holds"):
        writer.wait()
    writer.close()
    assert not list_checkpoints(tmp_path)
    assert files.named(tmp_path) == []


def test_the_thread_gives_way_to_training_and_a_save_that_is_waited_for_gives_way_to_nobody(
    tmp_path: Path,
) -> None:
    seen: list[tuple[int, bool]] = []

    def look() -> None:
        thread = threading.get_native_id()
        seen.append(
            (os.getpriority(os.PRIO_PROCESS, thread), threading.current_thread() is threading.main_thread())
        )

    writer, made = Writer(tmp_path), Checkpoint(1, {"w": torch.zeros(4)}, {}, {})
    writer.begin(made, copy=True, before=look, after=lambda: None)
    writer.wait()
    writer.begin(Checkpoint(2, made.weights, {}, {}), copy=False, before=look, after=lambda: None)
    done = writer.done()
    assert done is not None and done[0] == 2
    writer.close()
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert seen[1] == (ours, True) and seen[0][1] is False
    assert sys.platform != "linux" or seen[0][0] == min(19, ours + 10)
