"""What a resumed run must have in common with the run it goes on with, beside its recipe: template and data."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import orjson

from burnish.checkpoint.files import list_checkpoints
from burnish.errors import UsageError
from burnish.models.identity import short
from burnish.training.directory import RunDirectory

_TEMPLATE_KEYS = frozenset({"chat_template", "chat_template_kwargs", "reasoning"})


def refuse_other_template(run: RunDirectory, now: str | None, *, allow: Collection[str]) -> None:
    """UsageError where the run's plan or its newest checkpoint was made with another chat template."""
    if _TEMPLATE_KEYS & set(allow):
        return
    for place, before in _trained_with(run):
        if before != now:
            raise UsageError(
                f"chat_template: {short(now)}, was {short(before)} in {place}",
                rule="a resumed run is the same run: its chat template is the one it was started with",
                remedy="restore the template and its variables, or say --allow-change=chat_template",
            )


def _trained_with(run: RunDirectory) -> Iterator[tuple[str, str | None]]:
    """Where the run says which template it was trained with, and the template's hash."""
    plan = run.path / "plan.json"
    states = [path / "state.json" for path in list_checkpoints(run.checkpoints)[-1:]]
    for path in [plan, *states]:
        if path.is_file():  # no plan: killed while the data was read, and nothing was trained yet
            try:
                said = orjson.loads(path.read_bytes())
            except ValueError:  # a damaged checkpoint, which is passed over when it is read
                continue
            if "template_sha256" in said:
                yield str(path), said["template_sha256"]


def refuse_other_data(run: RunDirectory, now: str, *, allow: Collection[str]) -> None:
    """UsageError where the run began with other rows, or with rows encoded otherwise."""
    if {"data", *_TEMPLATE_KEYS} & set(allow) or not (run.path / "plan.json").exists():
        return
    before = run.read("plan.json")["data"]
    if before != now:
        raise UsageError(
            f"{run.path} began with training data {before}, and its datasets now give {now}",
            rule="a resumed run is the same run: the same rows, encoded the same",
            remedy="restore the data, or say --allow-change=data",
        )
