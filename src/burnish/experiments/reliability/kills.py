"""F1, F3 and F6: whole runs. Killed until they are done, told to stop, and met by a second process.

A run is killed by SIGKILL at a place of a save, or a random moment after it began; so are its resumes. What it
comes to is compared, bit for bit, with a run that nobody touched: weights, optimiser, state, metrics, finished model.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from burnish.checkpoint import faults
from burnish.checkpoint.files import WEIGHTS, named, newest_good, verify
from burnish.errors import DataError, UsageError
from burnish.experiments.reliability.bench import in_a_child, make_model, make_recipe, make_rows, wait_for
from burnish.experiments.reliability.outcome import Outcome
from burnish.experiments.reliability.saves import PLACES
from burnish.recipe.load import LoadedRecipe
from burnish.training.directory import open_run
from burnish.training.run import resume, train

PATIENCE = 120.0
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "full, packed": {},
    "full, one by one": {"packing": False, "gradient_checkpointing": True},
    "lora, dropout": {"adapter": "lora", "lora_dropout": 0.2, "learning_rate": 1e-2},
    "lora, dropout, one by one": {"adapter": "lora", "lora_dropout": 0.1, "packing": False},
    "bf16 over masters, early stopping": {"dtype": "bfloat16", "early_stopping_patience": 2, "eval_steps": 2},
    "two sources, muon, micro-batches": {"optimizer": "muon", "micro_batch_size": 2, "two": True},
    "mixture": {"mixture": "temperature", "two": True},
    "stages": {"stages": [{"num_epochs": 1}, {"num_epochs": 2, "learning_rate": 1e-3}]},
}
OWN = ("seconds", "memory_bytes")
"""What a machine says of itself, and no two runs have in common."""


class Bench:
    """One configuration with its untouched run."""

    def __init__(self, place: Path, keys: dict[str, Any], *, patience: float = PATIENCE) -> None:
        keys = dict(keys)
        self.place = place
        model = make_model(place / "model")
        rows = [make_rows(place / "rows.jsonl")]
        if keys.pop("two", False):
            rows.append(make_rows(place / "more.jsonl", first=100, count=17))
        self._model, self._rows, self._keys = model, rows, keys
        straight = self.recipe("straight")
        code = wait_for(in_a_child(lambda: train(straight), place / "log"), seconds=patience)
        if code != 0:
            raise UsageError(
                f"the untouched run ended with {code}", rule="it finishes", remedy=f"see {place / 'log'}"
            )

    def recipe(self, name: str) -> LoadedRecipe:
        """The configuration as a run of this name."""
        return make_recipe(self.place, name, self._model, self._rows, **self._keys)

    def differences(self, name: str) -> str | None:
        """What a run has otherwise than the untouched one."""
        one, other = open_run(self.place / "straight"), open_run(self.place / name)
        # The one resumed from stays as well, so that more may be kept; what both have must be equal.
        both = {path.name for path in named(one.checkpoints)} & {
            path.name for path in named(other.checkpoints)
        }
        if named(one.checkpoints)[-1].name not in both:
            return "the last checkpoint is another one"
        for path in (one.checkpoints / name for name in sorted(both)):
            for file in sorted(path.iterdir()):
                if file.read_bytes() != (other.checkpoints / path.name / file.name).read_bytes():
                    return f"{path.name}/{file.name} differs"
        if (one.final / "model.safetensors").read_bytes() != (other.final / "model.safetensors").read_bytes():
            return "final/model.safetensors differs"
        if _numbers(one.lines("metrics.jsonl")) != _numbers(other.lines("metrics.jsonl")):
            return "metrics.jsonl differs"
        return None


def _numbers(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in OWN} for line in lines]


def kills(place: Path, *, seed: int, trials: int = 200) -> Outcome:
    """F1: SIGKILL, resume, SIGKILL, resume ... until so many kills are reached; no run may differ."""
    outcome = Outcome("F1", "SIGKILL at any instant, resumed until done", seed)
    rng = random.Random(seed)
    benches: dict[str, Bench] = {}
    runs = 0
    while outcome.trials < trials:
        name = sorted(CONFIGURATIONS)[runs % len(CONFIGURATIONS)]
        if name not in benches:
            benches[name] = Bench(place / str(len(benches)), CONFIGURATIONS[name])
        before = outcome.trials
        failure = _kill_until_done(benches[name], f"run-{runs}", outcome, rng, left=trials - outcome.trials)
        if failure is not None:
            outcome.failures.append(f"{name}, run {runs} (kills {before + 1} to {outcome.trials}): {failure}")
        else:
            shutil.rmtree(benches[name].place / f"run-{runs}", ignore_errors=True)
        runs += 1
    outcome.margin = f"{runs} runs of {len(benches)} configurations"
    return outcome


def _kill_until_done(
    bench: Bench, name: str, outcome: Outcome, rng: random.Random, *, left: int
) -> str | None:
    path = bench.place / name
    planned = min(left, rng.randint(2, 5))
    for attempt in range(planned + 40):
        is_resume = (path / "resolved.yaml").exists()
        shutil.rmtree(path, ignore_errors=True) if path.exists() and not is_resume else None
        job = partial(resume, path) if is_resume else partial(train, bench.recipe(name))
        if attempt >= planned:
            code = wait_for(in_a_child(job, bench.place / "log"), seconds=PATIENCE)
            return bench.differences(name) if code == 0 else f"the last resume ended with {code}"
        in_save = rng.random() < 0.55
        kind = "inside a save" if in_save else "at a random moment"
        if _killed(job, bench.place / "log", rng, in_save=in_save):
            outcome.note(f"{kind}, of a resume" if is_resume else kind)
        elif (path / "final").exists():  # it was done before the kill came
            return bench.differences(name)
    return "it never finished"


def _killed(job: Any, log: Path, rng: random.Random, *, in_save: bool) -> bool:
    if in_save:
        fault = f"kill@{rng.choice(PLACES)}:{rng.randint(1, 2)}"
        return wait_for(in_a_child(job, log, BURNISH_FAULT=fault), seconds=PATIENCE) == -signal.SIGKILL
    child = in_a_child(job, log)
    if wait_for(child, seconds=rng.uniform(0.05, 2.0)) is not None:
        return False
    os.kill(child, signal.SIGKILL)
    return wait_for(child, seconds=PATIENCE) == -signal.SIGKILL


def signals(place: Path, *, seed: int, trials: int = 50) -> Outcome:
    """F3: a run is told to stop, or stopped and continued; it saves within 10 s, and its resume differs in nothing."""
    outcome = Outcome("F3", "SIGTERM, SIGINT, SIGHUP, SIGSTOP and SIGCONT", seed)
    rng = random.Random(seed)
    bench = Bench(place, CONFIGURATIONS["full, packed"])
    for trial in range(trials):
        number = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSTOP)[trial % 4]
        failure = _signalled(bench, f"run-{trial}", number, rng)
        outcome.note(number.name, failure)
        shutil.rmtree(place / f"run-{trial}", ignore_errors=True)
    return outcome


def _signalled(bench: Bench, name: str, number: signal.Signals, rng: random.Random) -> str | None:
    path = bench.place / name
    child = in_a_child(partial(train, bench.recipe(name)), bench.place / "log")
    until = time.monotonic() + PATIENCE
    wanted = rng.randint(1, 9)
    while _lines(path / "metrics.jsonl") < wanted and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(child, number)
    if number == signal.SIGSTOP:
        time.sleep(1.0)
        os.kill(child, signal.SIGCONT)
    started = time.monotonic()
    code = wait_for(child, seconds=PATIENCE)
    took = time.monotonic() - started
    if code != 0 or (number != signal.SIGSTOP and took > 10):
        return f"ended with {code} after {took:.1f} s"
    for checkpoint in named(path / "checkpoints"):
        verify(checkpoint)
    if not (path / "final").exists():
        code = wait_for(in_a_child(partial(resume, path), bench.place / "log"), seconds=PATIENCE)
    return bench.differences(name) if code == 0 else f"the resume ended with {code}"


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def company(place: Path, *, seed: int, trials: int = 20) -> Outcome:
    """F6: a second process on the same run, a reader during every save, strange places, and a clock that jumps."""
    outcome = Outcome("F6", "two processes, readers, odd paths and clocks", seed)
    bench = Bench(place / "bench", CONFIGURATIONS["full, packed"])
    for trial in range(trials):
        outcome.note("second process", _second_process(bench, f"second-{trial}"))
        odd = place / ("ä ☃ " * 3 + "x" * 40) / f"{trial}"
        outcome.note("path with spaces and Unicode, umask 077, LC_ALL=C, TZ", _odd_place(bench, odd))
    return outcome


def _second_process(bench: Bench, name: str) -> str | None:
    path = bench.place / name
    child = in_a_child(partial(train, bench.recipe(name)), bench.place / "log")
    until = time.monotonic() + PATIENCE
    refused, invalid = 0, None
    while wait_for(child, seconds=0.0) is None:
        if time.monotonic() > until:
            return "it did not end"
        if (path / "metrics.jsonl").exists():
            refused += _is_refused(path)
            invalid = invalid or _invalid(path)
    if refused == 0:
        return "a second process was not refused"
    return invalid or bench.differences(name)


def _is_refused(path: Path) -> bool:
    try:
        with open_run(path).locked():
            return False
    except UsageError:
        return True


def _invalid(path: Path) -> str | None:
    """What a reader finds that is no whole checkpoint; one that is deleted while it is read is none."""
    for directory in named(path / "checkpoints"):
        try:
            verify(directory)
        except (DataError, OSError) as error:
            if (directory / WEIGHTS).exists():
                return f"a reader saw {error}"
    for name in ("summary.json", "plan.json", "environment.json"):
        if (path / name).exists():
            json.loads((path / name).read_bytes())
    return None


def _odd_place(bench: Bench, place: Path) -> str | None:
    place.mkdir(parents=True)
    made = bench.recipe("odd")
    moved = replace(made, recipe=made.recipe.model_copy(update={"output_dir": str(place)}))

    def job() -> None:
        os.umask(0o077)
        faults.forget()
        train(moved)

    environment = {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "BURNISH_FAULT": "kill@rename:2"}
    code = wait_for(in_a_child(job, bench.place / "log", **environment), seconds=PATIENCE)
    if code != -signal.SIGKILL:
        return f"ended with {code} and was to be killed"
    code = wait_for(
        in_a_child(partial(resume, place / "odd"), bench.place / "log", TZ="Etc/GMT+12"), seconds=PATIENCE
    )
    found, complaints = newest_good(place / "odd" / "checkpoints")
    if code != 0 or found is None or complaints:
        return f"the resume ended with {code}, {complaints}"
    shutil.rmtree(bench.place / "odd", ignore_errors=True)
    (place / "odd").rename(bench.place / "odd")
    return bench.differences("odd")
