"""Documents for continued pre-training out of a plain `.txt` file.

A text file says nothing of where its documents end, and each document gets an end-of-text token
in training. One per file could not be split, shuffled or held out; one per paragraph would teach
that texts end after a paragraph. So:

- a line that holds only `<|endoftext|>` ends a document, wherever it stands, and is not text;
- so does a line that cannot be read, for the text would go on over a gap;
- otherwise a document ends at the first blank line after 2,000 characters;
- and where no blank line comes, at the end of the line that passes 8,000 characters.

The text between is kept to the character, line ends included; blank lines at a border belong to
neither document. Name a JSON Lines file with a column `text` to choose the borders yourself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from burnish.data.files import MAX_LINE_BYTES, read_lines
from burnish.data.reject import ConversionError, Numbered, Reason

MIN_CHARACTERS = 2_000
MAX_CHARACTERS = 8_000
END_OF_DOCUMENT = "<|endoftext|>"


def read_text(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Numbered]:
    """Yield `{"text": ...}` with the line each document begins on; a bad line is yielded as its error."""
    lines: list[str] = []
    start, length = 1, 0
    for number, raw in read_lines(path, max_line_bytes=max_line_bytes):
        line = _decoded(raw)
        fault = line if isinstance(line, ConversionError) else None
        bare = END_OF_DOCUMENT if isinstance(line, ConversionError) else line.strip()
        if isinstance(line, str) and bare != END_OF_DOCUMENT and (bare or lines):
            start = start if lines else number
            lines.append(line)
            length += len(line)
        if lines and _ends(bare, length):
            yield start, {"text": _joined(lines)}
            lines, length = [], 0
        if fault:
            yield number, fault
    if lines:
        yield start, {"text": _joined(lines)}


def _ends(bare: str, length: int) -> bool:
    """Whether a document ends with the line whose bare text is given."""
    if not bare:
        return length >= MIN_CHARACTERS
    return bare == END_OF_DOCUMENT or length >= MAX_CHARACTERS


def _joined(lines: list[str]) -> str:
    """The lines as one text, without the blank lines and the line end that close it."""
    last = len(lines)
    while not lines[last - 1].strip():
        last -= 1
    return "".join(lines[:last]).removesuffix("\n").removesuffix("\r")


def _decoded(line: bytes | ConversionError) -> str | ConversionError:
    """The line as text, its end included."""
    if isinstance(line, ConversionError):
        return line
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        seen = f"byte 0x{line[error.start]:02x} at byte {error.start + 1}"
        return ConversionError(Reason.INVALID_UTF8, seen)
