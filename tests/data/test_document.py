from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.data.document import MAX_CHARACTERS, MIN_CHARACTERS, read_text


def texts(path, raw):
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return [(line, record["text"]) for line, record in read_text(path)]


def test_a_short_file_is_one_document(tmp_path):
    assert texts(tmp_path / "a.txt", "\n\nOne.\n\n  Two.\r\n\n\n") == [(3, "One.\n\n  Two.")]


def test_a_document_ends_at_the_first_blank_line_after_the_least_length(tmp_path):
    long = "x" * MIN_CHARACTERS
    found = texts(tmp_path / "a.txt", f"a\n\n{long}\nb\n\n\nc\n")
    assert found == [(1, f"a\n\n{long}\nb"), (7, "c")]


def test_a_document_without_a_blank_line_ends_at_a_line_past_the_greatest_length(tmp_path):
    line = "y" * (MAX_CHARACTERS // 2)
    assert texts(tmp_path / "a.txt", f"{line}\n{line}\n{line}") == [(1, f"{line}\n{line}"), (3, line)]


def test_an_end_of_text_line_is_a_border_and_no_text(tmp_path):
    raw = "One.\n<|endoftext|>\n\nTwo <|endoftext|> inside.\n<|endoftext|>\n<|endoftext|>\nThree."
    assert texts(tmp_path / "a.txt", raw) == [(1, "One."), (4, "Two <|endoftext|> inside."), (7, "Three.")]


def test_a_line_that_is_no_utf8_is_rejected_and_parts_the_text_around_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"One.\n\xff\nTwo.\n")
    (_, one), (line, error), (_, two) = read_text(path)
    assert (one["text"], two["text"]) == ("One.", "Two.")
    assert (line, error.reason) == (2, "invalid UTF-8")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 3)), min_size=1, max_size=12))
def test_every_character_between_the_borders_is_kept(tmp_path_factory, paragraphs):
    raw = "".join(
        f"{k}{'z ' * (length // 2)}." + "\n" * breaks for k, (length, breaks) in enumerate(paragraphs)
    )
    path = tmp_path_factory.mktemp("text") / "a.txt"
    found = texts(path, raw)
    assert all(text in raw for _, text in found)
    assert "".join(text for _, text in found).replace("\n", "") == raw.replace("\n", "")
    assert all(raw.split("\n")[line - 1] == text.split("\n")[0] for line, text in found)
