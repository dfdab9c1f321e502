"""Which files a path stands for, and their lines, in bounded memory.

    data/train.jsonl         that file
    data/part-*.jsonl.gz     the files that match, sorted
    data/                    every data file below it, sorted; other files are left alone

A line ends at `\\n` and nowhere else: U+2028 and U+0085 are text, as JSON says.
"""

from __future__ import annotations

import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from burnish.data.reject import ConversionError, Reason
from burnish.errors import DataError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".csv", ".tsv", ".parquet", ".arrow", ".txt")
MAX_LINE_BYTES = 64 << 20
"""The longest line that is read (64 MiB); a longer one is skipped in pieces and rejected."""

_SKIP_FACTOR = 16  # a line this many times over the limit is no line: the file is something else
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_NOT_ROWS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})


def find_files(path: str) -> list[Path]:
    """The data files that a file, folder or glob names, sorted by name; none is an error."""
    if "\0" in path:
        raise DataError(f"datasets: path {path!r}", rule="a path holds no NUL character", remedy="correct it")
    place = Path(path)
    if place.is_dir():
        return _in_folder(place)
    # Asked before globbing, so that a file named `part[1].jsonl` is found.
    if place.exists() or place.is_symlink():
        return [_usable(place)]
    if glob.has_magic(path):
        return _matching(path)
    raise DataError(
        f"{path}: no such file or folder",
        rule="a dataset is a file, a folder, a glob or a name on the hub",
        remedy=f"correct `path`{_neighbours(place)}",
    )


def suffix_of(path: Path) -> str:
    """The ending that decides the reader, in lower case: `.jsonl`, `.json.gz`, ...; '' if unknown."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def name_of(path: Path) -> str:
    """The path as text that can be printed and written as JSON, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for buffered reading, through gzip where its name ends in `.gz`."""
    try:
        if path.name.lower().endswith(".gz"):
            return io.BufferedReader(gzip.GzipFile(path), 1 << 16)
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception, line: int | None = None) -> DataError:
    """The error for a file that the system or gzip cannot read on."""
    place = name_of(path) if line is None else f"{name_of(path)}:{line}"
    return DataError(
        f"{place}: {error or type(error).__name__}",
        rule="a data file can be read from its first byte to its last",
        remedy="check the file and its permissions; copy or compress it again if it is damaged",
    )


def read_lines(
    path: Path, *, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes | ConversionError]]:
    """Yield `(line number, bytes with the line's end)`; a UTF-8 mark before line 1 is not text."""
    number = 0
    stream = open_bytes(path)
    try:
        with stream:
            while line := stream.readline(max_line_bytes + 1):
                number += 1
                if number == 1:
                    line = without_mark(path, line)
                if len(line) <= max_line_bytes or line.endswith(b"\n"):
                    yield number, line
                    continue
                # What follows the limit is read in pieces and let go: memory stays at one line.
                length = len(line) + _skip_line(stream, path, number, _SKIP_FACTOR * max_line_bytes)
                detail = f"{length:,} bytes; the limit is {max_line_bytes:,}"
                yield number, ConversionError(Reason.TOO_LONG, detail)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error, number + 1) from None


def without_mark(path: Path, start: bytes) -> bytes:
    """The first bytes of a file without the UTF-8 mark; a UTF-16 mark is an error."""
    if start.startswith(_UTF16_MARKS):
        raise DataError(
            f"{name_of(path)}: begins with {start[:2].hex(' ')}, the mark of UTF-16",
            rule="data files are UTF-8",
            remedy=f"iconv -f UTF-16 -t UTF-8 {name_of(path)} > converted",
        )
    return start.removeprefix(_UTF8_MARK)


def _skip_line(stream: BinaryIO, path: Path, number: int, limit: int) -> int:
    """Read on to the end of a line that is too long, a piece at a time; return the bytes passed."""
    passed = 0
    while piece := stream.readline(1 << 20):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
        if passed > limit:
            raise DataError(
                f"{name_of(path)}:{number}: no end of line within {passed:,} bytes",
                rule="a data file has one row per line",
                remedy="check what the file holds; a JSON array belongs in a .json file",
            )
    return passed


def _in_folder(folder: Path) -> list[Path]:
    """Every data file below a folder; hidden files and what `datasets` writes beside rows are left out."""
    found = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and suffix_of(file)
        and file.name not in _NOT_ROWS
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if found:
        return found
    raise DataError(
        f"{name_of(folder)}: a folder without a data file",
        rule=f"a dataset folder holds files ending in {', '.join(SUFFIXES)}",
        remedy="correct `path`, or name the file itself",
    )


def _matching(pattern: str) -> list[Path]:
    """The files that match a glob; every one of them must be a data file."""
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (absolute too)
    files = [_usable(path) for path in found if not path.is_dir()]
    if files:
        return files
    raise DataError(
        f"{pattern}: 0 files match",
        rule="a glob matches at least one file",
        remedy="correct the pattern; `**` goes into folders",
    )


def _usable(path: Path) -> Path:
    """The path itself, if it is a regular file whose name ends as a data file's does."""
    if not path.is_file():
        raise DataError(
            f"{name_of(path)}: not a regular file (a pipe, a device, or a link that leads nowhere)",
            rule="a dataset is read from regular files, which have an end",
            remedy="write the rows to a file first",
        )
    if not suffix_of(path):
        raise DataError(
            f"{name_of(path)}: the ending {path.suffix!r} names no format that burnish reads",
            rule=f"a data file ends in {', '.join(SUFFIXES)}",
            remedy="rename it, or unpack it first if it is an archive",
        )
    return path


def _neighbours(place: Path) -> str:
    """Data files that stand where the missing one was looked for, for the remedy."""
    if not place.parent.is_dir():
        return f"; the folder {name_of(place.parent)} does not exist either"
    names = sorted(name_of(Path(file.name)) for file in place.parent.iterdir() if suffix_of(file))[:5]
    return f"; {name_of(place.parent)} holds {', '.join(names)}" if names else ""
