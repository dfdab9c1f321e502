from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from burnish.data.read import read_source
from burnish.types import Rejected, Row

ReadAll = Callable[..., list[Row | Rejected]]


@dataclass(frozen=True)
class FileSource:
    """A dataset source without the recipe: what `burnish.data.read.Source` asks for."""

    path: str
    format: str = "auto"
    split: str | None = "train"
    max_samples: int | None = None


@pytest.fixture(scope="session")
def make_source() -> type[FileSource]:
    return FileSource


@pytest.fixture(scope="session")
def read_all() -> ReadAll:
    """Read a path to its end; `max_line_bytes` goes to the reader, the rest to the source."""

    def read(path: Path | str, *, max_line_bytes: int = 1 << 20, **settings: object) -> list[Row | Rejected]:
        source = FileSource(str(path), **settings)  # type: ignore[arg-type]
        return list(read_source(source, source_index=0, first_index=0, max_line_bytes=max_line_bytes))

    return read


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files that lies beside the checkout, where there is one."""
    here = Path(__file__).resolve()
    for parent in here.parents:
        if (parent / "shared" / "data").is_dir():
            return parent / "shared" / "data"
    pytest.skip("../shared/data is absent: real files cannot be read")
