"""The C sources compiled by the machine's own gcc, once: in the background, while torch is being imported.

$BURNISH_CACHE (default ~/.cache/burnish)/kernels/KEY.so, KEY being a hash of the sources and of what compiles them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from burnish.cache import cache_directory

HERE = Path(__file__).parent
SOURCES = ("attention.c", "rows.c")
NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")
"""What the processor must have, as Linux spells it."""
FLAGS = (
    *("-O3", "-std=c11", "-fPIC", "-shared", "-fopenmp", "-mfma", "-Wl,--as-needed"),
    *(f"-m{flag.replace('_', '')}" for flag in NEEDED),
)
COMPILE = 'made=$1 path=$2; shift 2; "$@" -o "$made" && mv "$made" "$path"'
"""Whole or not at all, whether or not this process waits for it: another may be making the same."""


@dataclass(slots=True)
class Build:
    """A library that is there, is being made (`process`), or cannot be had (`why_not`)."""

    path: Path | None = None
    process: subprocess.Popen[str] | None = None
    why_not: str | None = None

    def finish(self) -> Path | None:
        """The library's path, once it is there."""
        if self.process is not None:
            said = self.process.communicate()[0].strip()
            if self.process.returncode:
                self.why_not = f"gcc failed: {said.splitlines()[0] if said else self.process.returncode}"
                self.path = None
            self.process = None
        return self.path


_begun: list[Build] = []


def begin() -> Build:
    """Look the library up, or begin to make it; whoever needs it calls `finish`."""
    if not _begun:
        _begun.append(_begin())
    return _begun[0]


def _begin() -> Build:
    why_not = _why_not()
    compiler = shutil.which("gcc")
    if why_not or compiler is None:
        return Build(why_not=why_not or "there is no gcc")
    libraries = [*_openmp_of_torch(), "-lm"]
    command = [compiler, *FLAGS, *(str(HERE / name) for name in SOURCES), *libraries]
    try:
        path = cache_directory() / "kernels" / f"{_key(compiler, libraries)}.so"
        if path.is_file():
            return Build(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(f".{os.getpid()}")
        process = subprocess.Popen(
            ["sh", "-c", COMPILE, "sh", str(made), str(path), *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        return Build(why_not=str(error))
    return Build(path, process)


def _why_not() -> str | None:
    if os.environ.get("BURNISH_KERNELS") == "off":
        return "BURNISH_KERNELS=off"
    facts = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not facts.exists():
        return (
            f"they are written for x86-64 on Linux, and this is {platform.system()} on {platform.machine()}"
        )
    flags = next((line for line in facts.read_text().splitlines() if line.startswith("flags")), "").split()
    lacks = [flag for flag in NEEDED if flag not in flags]
    return f"the processor lacks {', '.join(lacks)}" if lacks else None


def _openmp_of_torch() -> list[str]:
    """torch's own OpenMP library, where it has one: a second one would bring more threads, which wait by spinning."""
    spec = importlib.util.find_spec("torch")
    places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    return [str(found) for place in places for found in sorted((place / "lib").glob("libgomp*.so*"))[:1]]


def _key(compiler: str, libraries: list[str]) -> str:
    known = Path(compiler).stat()
    digest = hashlib.sha256(f"{known.st_size} {known.st_mtime_ns} {FLAGS} {libraries}".encode())
    for name in ("lanes.h", *SOURCES):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:24]
