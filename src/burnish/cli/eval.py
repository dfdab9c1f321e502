"""`burnish eval RUN|MODEL [SET...]`: what a model is worth, with intervals, beside its base."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from burnish.cli.data.options import Counting
from burnish.cli.output import Output
from burnish.cli.standing import tell_comparison, tell_measured
from burnish.errors import UsageError
from burnish.evaluation.evaluate import Settings, judge_answers
from burnish.evaluation.evaluations import FILE, Evaluation, append, compare_runs
from burnish.evaluation.examination import HELD_OUT, Measured, Set, examine, file_set, held_out_set
from burnish.evaluation.harness import require_harness, run_harness
from burnish.evaluation.outputs import answers_for
from burnish.evaluation.subjects import Run, Subject, is_run, open_model
from burnish.parallel.runtime import prepare_process


def command(
    model: Annotated[
        str, typer.Argument(help="A run, a model directory, a hub id, `marble`.", metavar="RUN|MODEL")
    ],
    sets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files of questions or demonstrations; `held-out`, a run's own, is the default.",
            metavar="SET...",
        ),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Measure the run's base on the same rows too.")
    ] = False,
    adapter: Annotated[str | None, typer.Option(help="An adapter directory, put on MODEL.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows of each set at most.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts that are answered together.")] = 32,
    generate: Annotated[
        bool, typer.Option(help="Ask for answers; without, demonstrations give their loss only.")
    ] = True,
    lm_task: Annotated[
        list[str] | None, typer.Option(help="A task of lm-eval (extra `eval`); repeatable.")
    ] = None,
    lm_tasks_dir: Annotated[Path | None, typer.Option(help="Folder with lm-eval tasks of your own.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Examples before each prompt of --lm-task.")
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option(help="Judge these answers to SET; MODEL is then only a name.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the evaluations here as well, as evals.json.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Set the runs named beside each other; measure nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each evaluation.")] = False,
) -> None:
    """Measure a model on held-out rows, questions and tasks; of a run, the result is kept in its evals.json."""
    output = Output(as_json=as_json)
    if compare:
        tell_comparison(*compare_runs([model, *(sets or [])]), output)
        return
    if outputs is not None:
        _keep(_judged(model, sets or [], outputs, limit, output), out)
        return
    if lm_task:
        require_harness()
    prepare_process()
    run = Run(model) if is_run(model) and adapter is None else None
    _refuse(model, run, sets or [], base=base, lm_task=lm_task)
    given = [_set(name, run, limit) for name in sets or ([HELD_OUT] if run and not lm_task else [])]
    found: list[Evaluation] = []
    with Counting("rows") as counting:
        settings = Settings(max_new_tokens, batch_size, generate, _progress(counting))
        tuned = run.tuned() if run else open_model(model, adapter=adapter)
        subjects = [tuned, run.base()] if run and base else [tuned]
        for measured in examine(given, subjects, settings, run.trained_on() if run and given else None):
            tell_measured(measured, output)
            found += measured.evaluations
        for subject in subjects if lm_task else ():
            for measured in _harness(subject, lm_task or [], limit, num_fewshot, lm_tasks_dir, batch_size):
                tell_measured(measured, output)
                found += measured.evaluations
    if run:
        append(run.directory, found)
        output.say(f"kept in {run.directory.path / FILE}", style="dim")
    _keep(found, out)


def _progress(counting: Counting) -> Any:
    return lambda what, done, total: counting(done, total)


def _refuse(model: str, run: Run | None, sets: list[str], *, base: bool, lm_task: list[str] | None) -> None:
    if run is None and (base or HELD_OUT in sets):
        raise UsageError(
            f"{model} is not a run directory, and {'--base' if base else 'held-out rows'} were asked for",
            rule="a base and held-out rows are a run's; a model directory does not say what it was trained from",
            remedy="evaluate the base by its own name, on a file: burnish eval BASE test.jsonl",
        )
    if run is None and not sets and not lm_task:
        raise UsageError(
            f"nothing to evaluate {model} on",
            rule="a model that is no run has no held-out rows; it is evaluated on files or tasks",
            remedy=f"burnish eval {model} test.jsonl (rows of docs/eval.md, or demonstrations)",
        )


def _set(name: str, run: Run | None, limit: int | None) -> Set:
    if name == HELD_OUT and run is not None:
        return held_out_set(run.rows, [source.title for source in run.recipe.sources], limit=limit)
    return file_set(name, limit=limit)


def _harness(
    subject: Subject,
    tasks: list[str],
    limit: int | None,
    num_fewshot: int | None,
    folder: Path | None,
    batch_size: int,
) -> list[Measured]:
    found = run_harness(
        subject.assistant, tasks, limit=limit, num_fewshot=num_fewshot, folder=folder, batch_size=batch_size
    )
    return [
        Measured(
            Set(task),
            [
                Evaluation(
                    subject.name,
                    subject.path,
                    subject.step,
                    _now(),
                    f"lm-eval:{task}",
                    rows,
                    figures,
                    notes=notes,
                )
            ],
        )
        for task, (figures, rows, notes) in found.items()
    ]


def _judged(name: str, sets: list[str], outputs: Path, limit: int | None, output: Output) -> list[Evaluation]:
    """Answers from a file, judged by the questions of one set."""
    if len(sets) != 1:
        raise UsageError(
            f"--outputs with {len(sets)} sets",
            rule="given answers are judged by the questions of one file",
            remedy=f"burnish eval {name} questions.jsonl --outputs {outputs}",
        )
    given = file_set(sets[0], limit=limit)
    if not given.questions:
        raise UsageError(
            f"{sets[0]}: demonstrations, not questions",
            rule="given answers are judged by rows that say how (docs/eval.md)",
            remedy='add "expected" and "metric" to its rows',
        )
    outcome = judge_answers(given.questions, answers_for(outputs, [one.text for one in given.questions]))
    evaluation = Evaluation(
        name,
        str(outputs),
        None,
        _now(),
        given.name,
        given.size,
        outcome.figures(),
        outcome.by_source(),
        samples=outcome.samples,
        notes=given.notes,
    )
    tell_measured(Measured(given, [evaluation]), output)
    return [evaluation]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _keep(found: list[Evaluation], out: Path | None) -> None:
    if out is None:
        return
    try:
        written = {"version": 1, "evaluations": [one.as_dict() for one in found]}
        out.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise UsageError(
            f"--out {out}: {error}", rule="--out is a file that can be written", remedy="name another"
        ) from error
