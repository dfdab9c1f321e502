"""The arithmetic of graded replies, character by character: slices, moves, parts of context, replies put back."""

from __future__ import annotations

from typing import Any

import pytest

from burnish.chat.grade import _insert, _moved, _slice, _untrained, _with_reply
from burnish.chat.provenance import OWN, Leaf, Rendered, Run
from burnish.chat.refusal import RowRefused
from burnish.chat.seam import Seam

ASKED = Leaf(0, "content", "..asked...")
REPLY = Leaf(1, "content", "0123456789")

# "##" of the template, "345" of the reply, "?" of the template, "ask" of the question, "!" of the template
RENDER = Rendered(
    "##345?ask!",
    (Run(0, 2, OWN, 0), Run(2, 5, 0, 3), Run(5, 6, OWN, 0), Run(6, 9, 1, 2), Run(9, 10, OWN, 0)),
    (REPLY, ASKED),
)


@pytest.mark.parametrize(
    ("start", "end", "text", "runs"),
    [
        (0, 10, "##345?ask!", RENDER.runs),
        (2, 5, "345", (Run(0, 3, 0, 3),)),  # the runs beside it begin and end where it ends and begins
        (3, 4, "4", (Run(0, 1, 0, 4),)),
        (1, 4, "#34", (Run(0, 1, OWN, 0), Run(1, 3, 0, 3))),
        (4, 8, "5?as", (Run(0, 1, 0, 5), Run(1, 2, OWN, 0), Run(2, 4, 1, 2))),
        (8, 10, "k!", (Run(0, 1, 1, 4), Run(1, 2, OWN, 0))),
        (5, 5, "", ()),
    ],
)
def test_a_slice_has_the_characters_and_of_each_where_it_came_from(
    start: int, end: int, text: str, runs: tuple[Run, ...]
) -> None:
    assert _slice(RENDER, start, end) == Rendered(text, runs, RENDER.leaves)


def test_characters_that_the_template_wrote_have_no_offset_however_they_are_cut() -> None:
    own = Rendered("abcdef", (Run(0, 6, OWN, 0),), ())
    assert _slice(own, 2, 5).runs == (Run(0, 3, OWN, 0),)


def test_a_moved_run_is_as_long_and_of_the_same_characters() -> None:
    assert _moved(Run(3, 7, 2, 5), 10) == Run(13, 17, 2, 5)


def test_text_put_in_moves_what_comes_after_it_and_the_seam() -> None:
    made, seam = _insert(RENDER, 5, "<x>", Seam(2, "<think>", (4, 8)))
    assert made.text == "##345<x>?ask!"
    assert made.runs == (
        Run(0, 2, OWN, 0),
        Run(2, 5, 0, 3),
        Run(5, 8, OWN, 0),
        Run(8, 9, OWN, 0),
        Run(9, 12, 1, 2),
        Run(12, 13, OWN, 0),
    )
    assert made.leaves == RENDER.leaves
    assert seam == Seam(2, "<think>", (7, 11))


THOUGHT = "<think>why</think>so\n"


def forgetful() -> Rendered:
    """ "[ask]so</s>": a template that drops the reasoning of the reply, and the whitespace at its end."""
    return Rendered(
        "[ask]so</s>",
        (Run(0, 1, OWN, 0), Run(1, 4, 0, 2), Run(4, 5, OWN, 0), Run(5, 7, 3, 18), Run(7, 11, OWN, 0)),
        (
            ASKED,
            Leaf(2, "content", THOUGHT),  # another message that says the same
            Leaf(3, "name", "assistant"),  # another field of this one
            Leaf(3, "content", THOUGHT),
        ),
    )


@pytest.mark.parametrize(("start", "said"), [(0, "<think>why</think>so"), (7, "why</think>so")])
def test_a_reply_put_back_is_the_rows_own_up_to_where_the_template_ends_it_then_the_templates_end(
    start: int, said: str
) -> None:
    made, seam = _with_reply(forgetful(), Seam(5, "<think>", (5, 7)), 3, THOUGHT, start)
    length = len(said)
    assert made.text == said + "</s>"
    assert made.runs == (Run(0, length, 3, start), Run(length, length + 4, OWN, 0))
    assert made.leaves == forgetful().leaves
    assert seam == Seam(0, "<think>", (0, length))


def test_a_reply_that_the_template_drops_whole_is_put_back_whole() -> None:
    dropped = Rendered("[]</s>", (Run(0, 6, OWN, 0),), (Leaf(1, "content", THOUGHT),))
    made, seam = _with_reply(dropped, Seam(2, "", (2, 2)), 1, THOUGHT, 0)
    assert made.text == THOUGHT + "</s>"
    assert made.runs == (Run(0, len(THOUGHT), 0, 0), Run(len(THOUGHT), len(THOUGHT) + 4, OWN, 0))
    assert seam == Seam(0, "", (0, len(THOUGHT)))


def test_a_reply_that_the_template_wrote_in_two_pieces_ends_with_the_last_character_of_either() -> None:
    pieces = Rendered(
        "so.why</s>",
        (Run(0, 2, 0, 18), Run(2, 3, OWN, 0), Run(3, 6, 0, 7), Run(6, 10, OWN, 0)),
        (Leaf(1, "content", THOUGHT),),
    )
    made, _ = _with_reply(pieces, Seam(0, "", (0, 6)), 1, THOUGHT, 0)
    assert made.text == "<think>why</think>so</s>"


def untrained(marked: object, *runs: Run, leaves: tuple[Leaf, ...] = (REPLY,)) -> tuple[tuple[int, int], ...]:
    message: dict[str, Any] = {"role": "assistant", "content": "0123456789", "untrained": marked}
    return _untrained(message, Rendered("", runs, leaves), 1)


def test_parts_that_are_context_lie_where_the_completion_has_their_characters() -> None:
    # The completion's characters 4 to 9 are 2 to 7 of the content.
    run = Run(4, 9, 0, 2)
    assert untrained([(3, 5)], run) == ((5, 7),)
    assert untrained([(0, 4)], run) == ((4, 6),)  # begins before what the render has
    assert untrained([(5, 10)], run) == ((7, 9),)  # ends after it
    assert untrained([(0, 10)], run) == ((4, 9),)
    assert untrained([(0, 2), (7, 10)], run) == ()  # ends where it begins, begins where it ends
    assert untrained([(2, 3), (6, 7)], run) == ((4, 5), (8, 9))


def test_parts_that_are_context_are_found_in_each_piece_of_the_content_and_in_nothing_else() -> None:
    leaves = (Leaf(1, "reasoning_content", "0123456789"), Leaf(1, "content", "0123456789"))
    runs = (
        Run(0, 4, 0, 0),
        Run(4, 6, OWN, 0),
        Run(6, 9, 1, 0),
        Run(9, 10, OWN, 0),
        Run(10, 14, 1, 5),
    )
    assert untrained([(1, 7)], *runs, leaves=leaves) == ((7, 9), (10, 12))


@pytest.mark.parametrize("marked", [None, (), []])
def test_without_such_parts_nothing_is_looked_for(marked: object) -> None:
    assert untrained(marked, Run(0, 5, OWN, 0)) == ()


@pytest.mark.parametrize("leaf", [OWN, 1])
def test_where_the_render_hides_the_content_such_parts_cannot_be_told_apart(leaf: int) -> None:
    leaves = (Leaf(1, "reasoning_content", "abc"), Leaf(1, "name", "abc"))
    with pytest.raises(RowRefused, match="cannot be told apart"):
        untrained([(0, 1)], Run(0, 3, leaf, 0), leaves=leaves)
