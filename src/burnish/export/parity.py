"""The parity gate: an export is opened cold, in a new process, and has to be what training made.

`parity.json` lists every check with what was seen and what was expected. An export that fails one does not come to be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from burnish.errors import BurnishError, DataError

COLD = Path(__file__).with_name("cold.py")
COLD_GGUF = Path(__file__).with_name("cold_gguf.py")

# As with the children that render templates: what an interpreter needs, and no secrets.
KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH"),
    *("TMPDIR", "TZ", "HF_HOME", "VIRTUAL_ENV", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)
SET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}


class ParityFailed(DataError):
    """What was exported is not what was trained; nothing was kept of it but the report."""


@dataclass(slots=True)
class Parity:
    """The checks of one export so far, and what else its reader should know."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The checks that did not hold."""
        return [check for check in self.checks if not check["ok"]]

    def write(self, path: Path, **said: Any) -> None:
        """Write the report."""
        value = {"ok": not self.failed, **said, **self.notes, "checks": self.checks}
        path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS) + b"\n")

    def require(self, report: Path) -> None:
        """ParityFailed unless every check holds; `report` is where they can be read."""
        if not self.failed:
            return
        first = self.failed[0]
        raise ParityFailed(
            f"{', '.join(check['check'] for check in self.failed)} of {len(self.checks)} checks failed: "
            f"{first['check']} saw {shown(first['saw'])}, expected {shown(first['expected'])}",
            rule="what leaves is what was trained: template, ids, stops, keys, dtype and logits, opened cold",
            remedy=f"read {report}; if the run's own files were changed, restore them, and export again",
        )


def shown(value: Any) -> str:
    """A value of a check, short enough for a line."""
    text = str(value)
    return text if len(text) <= 160 else f"{text[:120]} ... {text[-30:]}"


def run_cold(script: Path, *words: Path) -> list[dict[str, Any]]:
    """The checks that a script makes in a new process, with a clean environment and no network.

    `words` are the script's arguments, the last of them the report that it writes.
    """
    report = words[-1]
    env = {name: os.environ[name] for name in KEPT if name in os.environ} | SET
    # -P: the folder of the script holds modules of burnish, which must not be found there by accident.
    ran = subprocess.run(
        [sys.executable, "-P", str(script), *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0 or not report.is_file():
        raise BurnishError(
            f"the parity check ended with code {ran.returncode}: {ran.stderr.strip()[-600:]}",
            rule="an export is examined by a process of its own before it is kept",
            remedy="free memory (it holds the model once, in fp32) and export again",
        )
    checks: list[dict[str, Any]] = orjson.loads(report.read_bytes())
    return checks


def brief(checks: Sequence[Mapping[str, Any]]) -> str:
    """The names of the checks that held."""
    return ", ".join(str(check["check"]) for check in checks if check["ok"])
