"""Who is measured, with which settings, and how one run of each is started.

`trl-defaults` is SFTTrainer told only what makes it the same run. `trl-best` and `hf-best` take the settings that
`--tune` found fastest on this machine (tuned.json), among CANDIDATES, with the allocator set as burnish sets it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Watched, watch
from workloads import recipe_keys

HERE = Path(__file__).resolve().parent
ARMS = ("trl-defaults", "trl-best", "hf-best", "burnish")
TUNED = HERE / "tuned.json"

CANDIDATES: tuple[dict[str, Any], ...] = (
    {"flat": True, "micro": 8},
    {"flat": True, "micro": 4, "sorted": True},
    {"flat": True, "micro": 2, "sorted": True},
    {"flat": False, "micro": 8},
    {"flat": False, "micro": 4, "sorted": True},
    {"flat": False, "micro": 2, "sorted": True},
    {"flat": False, "micro": 1},
)
"""Padding-free or padded, micro-batch x accumulation = 8, micro-batches of even lengths. A micro-batch of one has
neither padding nor a mask. Packing across batches is left out: it changes which rows an optimiser step sees."""

UNTUNED = {
    "trl": {"flat": True, "micro": 8},
    "trl, shared_prompt": {"flat": True, "micro": 2, "sorted": True},
    "hf": {"flat": False, "micro": 1},
}
"""Where tuned.json has nothing: what was fastest when all of this was first tried by hand."""


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: a workload, a method, a precision."""

    workload: str
    method: str = "full"
    dtype: str = "bfloat16"

    @property
    def name(self) -> str:
        precision = "" if self.dtype == "bfloat16" else f", {self.dtype}"
        return f"{self.workload}, {self.method}{precision}"


@dataclass(slots=True)
class Bench:
    """Where things are: the prepared shape, the peers' interpreter, extra recipe keys for burnish."""

    folder: Path
    peers: Path
    keys: dict[str, Any]
    thrown_away: int = 0

    def facts(self, workload: str) -> dict[str, Any]:
        return json.loads((self.folder / workload / "facts.json").read_text())

    def start(self, arm: str, case: Case, steps: int, settings: dict[str, Any] | None = None) -> Watched:
        """One run in a fresh process, in an emptied directory."""
        place = (self.folder / "runs" / f"{arm}-{case.workload}-{case.method}").resolve()
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if arm == "burnish":
            command = self._burnish(place, case, steps)
        else:
            command = self._peer(place, arm, case, steps, settings)
        seen = watch(command, place / "run", log=place / "log", env=environment)
        shutil.rmtree(place / "run", ignore_errors=True)
        return seen

    def _burnish(self, place: Path, case: Case, steps: int) -> list[str]:
        keys = recipe_keys(self.folder.resolve(), case.workload, method=case.method, dtype=case.dtype)
        keys.pop("num_epochs")
        keys |= {"max_steps": steps, "output_dir": str(place), "run_name": "run", **self.keys}
        recipe = place / "recipe.yaml"
        recipe.write_text(json.dumps(keys))  # JSON is YAML
        return [sys.executable, "-m", "burnish", "train", str(recipe)]

    def _peer(
        self, place: Path, arm: str, case: Case, steps: int, settings: dict[str, Any] | None
    ) -> list[str]:
        folder = self.folder.resolve()
        own = settings if settings is not None else settings_of(arm, case)
        given = {
            "trainer": arm.partition("-")[0],
            "run": str(place / "run"),
            "model": str(folder / ("model-thinking" if case.workload == "reasoning" else "model")),
            "examples": str(folder / case.workload / "examples.json"),
            "adapter": str(folder / "lora.safetensors"),
            "method": case.method,
            "dtype": case.dtype,
            "steps": steps,
            **own,
        }
        (place / "settings.json").write_text(json.dumps(given))
        return [str(self.peers), str(HERE / "peer.py"), str(place / "settings.json")]


def settings_of(arm: str, case: Case) -> dict[str, Any]:
    """What an arm is told beyond the run itself."""
    if arm == "trl-defaults":
        return {"defaults": True}
    trainer = arm.partition("-")[0]
    tuned = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    untuned = UNTUNED.get(f"{trainer}, {case.workload}", UNTUNED[trainer])
    found = tuned.get(f"{case.workload}, {case.method}", {}).get(trainer, {}).get("best", untuned)
    return best_of(found, case)


def best_of(candidate: dict[str, Any], case: Case) -> dict[str, Any]:
    """A candidate with what every tuned peer gets: the allocator; for LoRA in bf16 a base that is bf16 at rest."""
    frozen_bf16 = case.method == "lora" and case.dtype == "bfloat16"
    base = "bfloat16" if frozen_bf16 else "float32"
    return {"allocator": "kept", "base_dtype": base, **candidate}
