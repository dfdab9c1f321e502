"""Which file a path in a recipe means.

A relative path in a recipe file is looked for beside the recipe first, then in the current directory; on the
command line (an override) and from Python it is the current directory first. What was found is kept as seen
from the current directory (`data/a.jsonl`, not `/home/me/work/data/a.jsonl`) where it lies under it.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from burnish.errors import UsageError
from burnish.recipe.words import show

HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
DATA_SUFFIXES = (
    ".jsonl", ".json", ".ndjson", ".parquet", ".arrow", ".csv", ".tsv", ".txt", ".gz", ".zst", ".zip",
)  # fmt: skip
EMBEDDED = "marble"


@dataclass(frozen=True)
class Place:
    """The folders to look in, in order, and the words that open an error about this path."""

    folders: tuple[Path, ...]
    saw: str

    def find(self, path: str, *, is_there: Callable[[str], bool]) -> str | None:
        """The first place where the path is, as seen from the current directory."""
        for folder in self.folders:
            candidate = str(folder / _expand(path))
            if is_there(candidate):
                return _shorten(candidate)
        return None


def locate_dataset(path: str, place: Place) -> str:
    """A file, folder or glob that is there, or a name that may be on the hub."""
    _refuse_address(path, place)
    found = place.find(path, is_there=_matches)
    if found is not None:
        return found
    if HUB_NAME.fullmatch(path) and not path.lower().endswith(DATA_SUFFIXES):
        return path
    near = list(_near_misses(path, place))
    raise UsageError(
        f"{place.saw}: no such file",
        rule="a dataset is a file, a folder or a glob that matches, or `owner/name` on the hub; looked in "
        + " and ".join(dict.fromkeys(str(folder) for folder in place.folders)),
        remedy=f"did you mean {' or '.join(near)}?" if near else "correct the path",
    )


def locate_model(path: str, place: Place) -> str:
    """The embedded model's name, a directory that is there, or a name that may be on the hub."""
    _refuse_address(path, place)
    if path == EMBEDDED:
        return path
    found = place.find(path, is_there=os.path.isdir)
    if found is not None:
        return found
    if HUB_NAME.fullmatch(path):
        return path
    raise UsageError(
        f"{place.saw}: no such directory",
        rule="a model is `marble`, a directory, or `owner/name` on the hub",
        remedy="correct the path or the name",
    )


def locate_template(path: str, place: Place) -> str:
    """A Jinja file that is there."""
    if "{{" in path or "{%" in path:
        raise UsageError(
            f"{place.saw}: a template, not the path of one",
            rule="chat_template is the path of a Jinja file",
            remedy="save the template as chat.jinja and say `chat_template: chat.jinja`",
        )
    _refuse_address(path, place)
    found = place.find(path, is_there=os.path.isfile)
    if found is None:
        raise UsageError(
            f"{place.saw}: no such file",
            rule="chat_template is the path of a Jinja file",
            remedy="correct the path, or remove the key to use the model's own template",
        )
    return found


def absolute(path: str) -> str:
    """The same file for a reader in any directory; a hub name stays as it is."""
    return _full(path) if path != EMBEDDED and _matches(path) else path


def _matches(path: str) -> bool:
    # os.path answers no where Path raises: for a name that is too long
    if os.path.exists(path):  # noqa: PTH110
        return True
    return glob.has_magic(path) and any(True for _ in glob.iglob(path, recursive=True))  # noqa: PTH207


def _full(path: str) -> str:
    # links are not followed: a run says the name that the user gave
    return os.path.normpath(Path.cwd() / path)


def _expand(path: str) -> str:
    # Path.expanduser raises where there is no such user; here `~nobody` is a name like any other
    return os.path.expanduser(path)  # noqa: PTH111


def _shorten(path: str) -> str:
    """The path from the current directory when it lies under it, and in full when not."""
    full, here = _full(path), str(Path.cwd())
    return os.path.relpath(full, here) if os.path.commonpath([full, here]) == here else full


def _refuse_address(path: str, place: Place) -> None:
    if "://" in path:
        raise UsageError(
            f"{place.saw}",
            rule="burnish opens no web addresses",
            remedy="download the file first, or name a hub repository as `owner/name`",
        )


def _near_misses(path: str, place: Place) -> Iterator[str]:
    for folder in place.folders:
        parent = (folder / _expand(path)).parent
        names = [each.name for each in parent.iterdir()] if parent.is_dir() else []
        for name in difflib.get_close_matches(Path(path).name, names, n=3, cutoff=0.6):
            yield show(_shorten(str(parent / name)))
