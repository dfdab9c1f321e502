"""`burnish resume RUN --verify`: the run's last interval trained a second time, and compared with what was saved.

step 40 -> 60 again: 23 tensors of weights, 46 of the optimiser and the state are equal, bit for bit
"""

from __future__ import annotations

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from burnish.checkpoint.files import Checkpoint, newest_good
from burnish.data.plan import due
from burnish.errors import UsageError
from burnish.parallel.runtime import prepare_process
from burnish.recipe.load import load_recipe
from burnish.training.continuity import refuse_other_data, refuse_other_template, restore
from burnish.training.directory import RunDirectory, open_run
from burnish.training.events import Evaluated, Skipped, Stepped
from burnish.training.exhaustion import memory_errors
from burnish.training.loop import evaluation_interval, training_loop
from burnish.training.observe import open_observers
from burnish.training.oracle import settle
from burnish.training.run import open_readied
from burnish.training.session import Session
from burnish.training.stages import ready


@dataclass(frozen=True, slots=True)
class Repetition:
    """What came of an interval trained twice: `differences` names what is not equal, bit for bit."""

    run: Path
    first: int
    last: int
    tensors: int
    differences: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "run": str(self.run),
            "from_step": self.first,
            "to_step": self.last,
            "tensors": self.tensors,
            "equal": not self.differences,
            "differences": self.differences,
        }


def repeat_last_interval(path: str | Path) -> Repetition:
    """Train from the last good checkpoint but one (or the start) to the last again; the run is only read."""
    prepare_process()
    run = open_run(path)
    saved, _ = newest_good(run.checkpoints)
    if saved is None or saved.step == 0:
        raise UsageError(
            f"{run.path} has no whole checkpoint",
            rule="--verify trains up to the newest checkpoint again and compares",
            remedy=f"burnish resume {run.path}; with save_steps a run has more checkpoints",
        )
    recipe = load_recipe(run.path / "resolved.yaml").recipe.model_copy(update={"sample_prompts": ()})
    with memory_errors(recipe), run.locked(), tempfile.TemporaryDirectory(prefix="burnish-verify-") as place:
        settings = run.read("environment.json")
        date = datetime.date.fromisoformat(settings["date"]) if "date" in settings else None
        readied = ready(recipe, date=date)
        for certified in readied.certified:
            certified.certificate.require()
        refuse_other_template(run, readied.tokenizer.identity.template_sha256, allow=())
        refuse_other_data(run, readied.data, allow=())
        session = open_readied(recipe, readied, from_scratch=settings["from_scratch"])
        settle(session)
        open_observers(session, run, keep=False)
        restore(session, run, below=saved.step)
        first = session.state.step
        session.state.stopped_by = None
        beside = RunDirectory(Path(place))
        # The evaluation of the last step belongs to the interval, unless it was given up then too.
        ends_with = Evaluated if _evaluated_at(session, saved) else (Stepped, Skipped)
        over: list[int] = []
        for event in training_loop(session, beside, interrupted=lambda: bool(over)):
            if isinstance(event, ends_with) and event.step >= saved.step:
                over.append(event.step)
        again, _ = newest_good(beside.checkpoints)
    if again is None:
        raise UsageError(
            f"{run.path}: no checkpoint came of it", rule="the interval ends", remedy="report this"
        )
    tensors = len(saved.weights) + len(saved.optimizer)
    return Repetition(run.path, first, saved.step, tensors, differences(saved, again))


def _evaluated_at(session: Session, saved: Checkpoint) -> bool:
    """Whether a checkpoint was written after the held-out loss of its step was measured."""
    last = session.plan.num_steps
    every = evaluation_interval(session.recipe.eval_steps, last)
    return bool(session.held_out) and due(saved.step, every, last) and not saved.state.get("owes_evaluation")


def differences(saved: Checkpoint, again: Checkpoint) -> list[str]:
    """What two checkpoints disagree on, tensor by tensor and field by field."""
    found = []
    for kind, before, after in (
        ("weights", saved.weights, again.weights),
        ("optimizer", saved.optimizer, again.optimizer),
    ):
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                found.append(f"{kind} {name}: only in one of the two")
            elif not torch.equal(before[name], after[name]):
                apart = (before[name].double() - after[name].double()).abs().max()
                found.append(f"{kind} {name}: up to {float(apart):.3g} apart")
    for key in sorted(saved.state.keys() | again.state.keys()):
        if saved.state.get(key) != again.state.get(key):
            found.append(f"state {key}: {again.state.get(key)}, was {saved.state.get(key)}")
    return found
