"""Where the kernels come from, and that all goes on without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.kernels import build
from burnish.kernels.library import kernels, why_none

has_kernels = pytest.mark.skipif(kernels() is None, reason=f"no kernels here: {why_none()}")


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(build, "_begun", [])
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path))
    monkeypatch.delenv("BURNISH_KERNELS", raising=False)
    return tmp_path / "kernels"


@has_kernels
def test_they_are_compiled_once(anew: Path) -> None:
    first = build.begin()
    assert first.process is not None
    path = first.finish()
    assert path is not None
    assert list(anew.iterdir()) == [path]
    build._begun.clear()
    again = build.begin()
    assert again.process is None
    assert again.finish() == path


@has_kernels
def test_another_source_is_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = build.begin().path
    for source in build.HERE.glob("*.[ch]"):
        (tmp_path / source.name).write_text(source.read_text() + "\n")
    monkeypatch.setattr(build, "HERE", tmp_path)
    build._begun.clear()
    assert build.begin().path != first


@has_kernels
def test_a_source_that_does_not_compile_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("lanes.h", *build.SOURCES):
        (tmp_path / name).write_text("int broken(")
    monkeypatch.setattr(build, "HERE", tmp_path)
    begun = build.begin()
    assert begun.finish() is None
    assert begun.why_not is not None
    assert begun.why_not.startswith("gcc failed: ")
    assert not list((tmp_path / "kernels").iterdir())


@pytest.mark.parametrize(
    ("say", "words"),
    [
        ({"BURNISH_KERNELS": "off"}, "BURNISH_KERNELS=off"),
        ({"PATH": "/nowhere"}, "there is no gcc"),
        ({"BURNISH_CACHE": "/proc/none"}, "/proc/none"),
    ],
)
def test_why_there_are_none(monkeypatch: pytest.MonkeyPatch, say: dict[str, str], words: str) -> None:
    if kernels() is None and "BURNISH_KERNELS" not in say:
        pytest.skip("this processor has none anyway")
    for key, value in say.items():
        monkeypatch.setenv(key, value)
    begun = build.begin()
    assert begun.finish() is None
    assert begun.why_not is not None
    assert words in begun.why_not


def test_a_processor_without_bf16_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "NEEDED", ("avx512f", "no_such_thing"))
    why_not = build.begin().why_not
    assert why_not is not None
    assert "no_such_thing" in why_not or "x86-64" in why_not


@has_kernels
def test_torch_and_the_kernels_have_one_openmp() -> None:
    """Two would mean two sets of threads, of which one waits by spinning while the other works."""
    code = (
        "import torch; from burnish.kernels.library import kernels; kernels(); torch.ones(9) + 1\n"
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line or 'libiomp' in line}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "1"
