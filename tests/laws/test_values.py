"""What passes from one stage to the next is a value: nobody changes it on the way, or hangs something on it."""

from __future__ import annotations

import dataclasses

import pytest

from burnish.chat.grade import Stops, Turn
from burnish.checkpoint.files import Checkpoint
from burnish.data.pack import Pack, Segment, _Run
from burnish.losses.cross_entropy import Grading, LogitRule, Rows

VALUES = (Turn, Stops, Pack, Segment, _Run, Grading, LogitRule, Rows, Checkpoint)


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_is_frozen_and_has_no_room_for_more(kind: type) -> None:
    made = object.__new__(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(kind)[0].name, None)
    assert not hasattr(made, "__dict__")
