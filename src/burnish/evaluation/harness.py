"""Tasks of EleutherAI's evaluation harness, run by its own package on a model that is already loaded.

    burnish eval RUN --lm-task arc_easy --lm-task ifeval        extra `eval`; data sets come from the hub
    burnish eval RUN --lm-task mine --lm-tasks-dir tasks/       a task of your own, whose data may be local files

Names, prompts and numbers are the harness's. Shares (acc, exact_match, ...) get Wilson's interval over its count
of samples; of other numbers its standard error is kept in the notes.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from burnish.errors import DataError, UsageError
from burnish.evaluation.figures import Figure
from burnish.evaluation.intervals import wilson_interval
from burnish.models.assistant import Assistant

SHARES = ("acc", "acc_norm", "exact_match", "prompt_level_strict_acc", "prompt_level_loose_acc", "em")
LOWER = ("perplexity", "bits_per_byte", "byte_perplexity", "word_perplexity", "ter", "brier_score")


def require_harness() -> None:
    """UsageError with the command that installs lm-eval, where it is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UsageError(
            "--lm-task: the package lm-eval is not installed",
            rule="the harness's tasks are run by its own package, which is an extra",
            remedy="pip install 'burnish[eval]'; burnish's own tasks are JSONL files, and need nothing",
        )


def run_harness(
    assistant: Assistant,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    folder: Path | None = None,
    batch_size: int = 16,
) -> dict[str, tuple[dict[str, Figure], int, list[str]]]:
    """By task: its figures, how many samples they are of, and notes."""
    require_harness()
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(folder) if folder else None)
    known = set(manager.all_tasks)
    if unknown := [task for task in tasks if task not in known]:
        raise UsageError(
            f"--lm-task {unknown[0]!r}",
            rule=f"lm-eval knows {len(known):,} tasks, and those in --lm-tasks-dir",
            remedy="list them: lm-eval ls tasks",
        )
    model = HFLM(
        pretrained=assistant.model,
        tokenizer=assistant.tokenizer.tokenizer,
        batch_size=batch_size,
        device=str(assistant.model.device),
    )
    try:
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            limit=limit,
            task_manager=manager,
            apply_chat_template=assistant.tokenizer.template is not None,
            bootstrap_iters=0,
            log_samples=False,
            verbosity=None,
        )
    except Exception as error:  # whatever a task's code or the hub's client raises
        raise DataError(
            f"lm-eval, {', '.join(tasks)}: {type(error).__name__}: {str(error)[:300]}",
            rule="a task's data set comes from the hub, and some tasks need packages of their own",
            remedy="go online, or ask local files: --lm-tasks-dir, or burnish's own JSONL (docs/eval.md)",
        ) from error
    return {task: _figures(found, task) for task in found["results"]}


def _figures(found: Mapping[str, Any], task: str) -> tuple[dict[str, Figure], int, list[str]]:
    count = int(found.get("n-samples", {}).get(task, {}).get("effective", 0))
    figures: dict[str, Figure] = {}
    notes: list[str] = []
    for key, value in found["results"][task].items():
        name, _, variant = key.partition(",")
        if name.endswith("_stderr") or not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if not variant:  # `alias` and counts
            continue
        label = name if variant == "none" else f"{name} ({variant})"
        better = found.get("higher_is_better", {}).get(task, {}).get(name)
        better = name not in LOWER if better is None else bool(better)
        figures[label] = _figure(name, float(value), count, better)
        error = found["results"][task].get(f"{name}_stderr,{variant}")
        if isinstance(error, float) and math.isfinite(error):
            notes.append(f"{label}: lm-eval's standard error {error:.4f}")
    return figures, count, notes


def _figure(name: str, value: float, count: int, better: bool) -> Figure:
    if name in SHARES and count and 0 <= value <= 1:
        return Figure(value, *wilson_interval(value * count, count), count, "wilson", better)
    return Figure(value, None, None, count, "none", better)
