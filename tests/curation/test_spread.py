"""Work in several processes: a child that is killed ends it in words, and an error of ours comes through whole."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from burnish.curation.spread import spread
from burnish.errors import BurnishError, DataError


def killed(chunk: int) -> int:
    if chunk == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * chunk


def refused(chunk: int) -> int:
    raise DataError(f"chunk {chunk}", rule="the rule", remedy="the remedy")


def test_a_child_that_is_killed_ends_the_work_in_words_and_leaves_no_other_behind() -> None:
    with pytest.raises(BurnishError, match=r"one of the 2 processes .* ended before it answered") as seen:
        list(spread(killed, range(40), processes=2))
    assert seen.value.exit_code == 1 and "--processes 1" in seen.value.remedy
    assert not multiprocessing.active_children()


def test_an_error_of_ours_in_a_child_is_that_error_here() -> None:
    with pytest.raises(DataError) as seen:
        list(spread(refused, range(2), processes=2))
    assert (seen.value.saw, seen.value.rule, seen.value.remedy) == ("chunk 0", "the rule", "the remedy")
