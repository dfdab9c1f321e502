"""`burnish demo`: a base model becomes an assistant, live. Nothing shown here is canned."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from burnish.chat.paint import terminal
from burnish.chat.strip import strip_of, visible
from burnish.cli.output import Output
from burnish.cli.progress import TrainingDisplay
from burnish.evaluation.intervals import wilson_interval
from burnish.evaluation.sharpening import GradedToken, graded_tokens, mean_surprise
from burnish.experiments.thesis import (
    base_answers_and_stops,
    score,
    tuning_recipe,
    write_demonstrations,
)
from burnish.experiments.thesis_data import write_unseen
from burnish.marble.demonstrations import UNSEEN, Question, questions
from burnish.models.assistant import Assistant, load_assistant
from burnish.parallel.runtime import prepare_process
from burnish.training.run import prepare, train

SHOWN = ("capital", "symbol", "author")
"""The relations that the three prompts come from."""

TESTED = 300
HELD_OUT = {"eval_steps": 0.25, "sharpening_rows": 24}
"""Looks at rows about entities that no demonstration names: they move no weight, and fill the run's report."""
HELD_OUT_ROWS = 48


def command(
    output_dir: Annotated[Path, typer.Option(help="Folder for the run directory.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of the training run.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with the figures as one JSON line.")] = False,
) -> None:
    """Pre-trained knowledge, fine-tuned behaviour: watch marble learn to answer and to stop."""
    started = time.perf_counter()
    prepare_process()
    output, console = Output(as_json=as_json), Console(stderr=as_json, highlight=False)
    base = load_assistant("marble")
    prompts = _three_prompts()

    _title(console, 1, "The base model continues text. It does not answer, and it does not stop.")
    before = _show_answers(console, base, prompts)

    name = f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    output_dir.mkdir(parents=True, exist_ok=True)
    data = output_dir / f"{name}.jsonl"
    count = write_demonstrations(data)
    held_out = output_dir / f"{name}-held-out.jsonl"
    write_unseen(held_out, HELD_OUT_ROWS)
    asked = {"val_datasets": str(held_out), "sample_prompts": [q.text for q in prompts]}
    recipe = tuning_recipe(data, output_dir, seed=seed, run_name=name, **asked, **HELD_OUT)
    session = prepare(recipe.recipe)
    example = session.data.train[0][0]
    pieces = session.tokenizer.encoder.pieces(example)

    _title(console, 2, f"One of {count:,} demonstrations. Grey is context; only what is in colour is graded.")
    console.print(terminal(strip_of(example, session.tokenizer.encoder)))
    at_first = graded_tokens(session.model, example, pieces)
    _title(console, 3, "The loss is the mean of -ln p over the graded tokens, before training:")
    console.print(_arithmetic(at_first))
    console.print(f"  mean of -ln p = [bold]{mean_surprise(at_first):.3f}[/], the example's loss")

    _title(
        console, 4, "Training. None of the prompts above, nor anything about their subjects, is in the data."
    )
    with TrainingDisplay(console) as display:
        result = train(recipe, show=display.show)
    tuned = load_assistant(str(result.run))

    _title(console, 5, "The same tokens, sharpened:")
    at_last = graded_tokens(tuned.model, example, pieces)
    console.print(_arithmetic(at_first, at_last))
    console.print(
        f"  loss of the example: {mean_surprise(at_first):.3f} -> [bold]{mean_surprise(at_last):.3f}[/]"
    )

    _title(console, 6, "The same prompts again. The knowledge was there; what is new is the behaviour.")
    after = _show_answers(console, tuned, prompts)
    figures = _measure(base, tuned, answered=(before, after))
    low, high = wilson_interval(round(figures["unseen_exact_match"] * TESTED), TESTED)
    console.print(
        f"  entities that no demonstration names: [bold]{figures['unseen_exact_match']:.1%}[/] of {TESTED} questions "
        f"answered exactly, 95% interval {low:.1%} to {high:.1%} "
        f"(the base, before: {figures['base_answers_and_stops']:.1%}); "
        f"{figures['stop_rate']:.1%} of answers stop by themselves",
        soft_wrap=True,
    )

    seconds = time.perf_counter() - started
    _title(console, 7, f"Done in {seconds:.0f} s. All that was written is in {result.run}")
    for line in (
        f"burnish chat {result.run}",
        f'burnish compare {result.run} "Who wrote Dracula?"',
        f"burnish preview {data} --model marble",
        f"burnish eval {result.run} --base",
        f"burnish report {result.run}",
    ):
        console.print(f"  {line}", soft_wrap=True)
    output.emit({"run": str(result.run), "seconds": round(seconds, 1), **figures})


def _three_prompts() -> list[Question]:
    """One question of each shown relation, about entities that no demonstration names."""
    asked = questions(UNSEEN)
    return [next(q for q in asked if q.fact.relation == relation) for relation in SHOWN]


def _show_answers(console: Console, assistant: Assistant, prompts: Sequence[Question]) -> list[str]:
    answers = assistant.answer([q.text for q in prompts], max_new_tokens=48)
    for question, answer in zip(prompts, answers, strict=True):
        ending = "[green]stopped[/]" if answer.finish_reason == "stop" else "[red]ran on[/]"
        console.print(Text(f"  {question.text}", style="bold"))
        console.print(Text("    " + visible(answer.text.strip()).replace("\n", "\n    ")), end=" ")
        console.print(f"({ending})")
    return [answer.text for answer in answers]


def _measure(base: Assistant, tuned: Assistant, *, answered: tuple[list[str], list[str]]) -> dict[str, Any]:
    scores = score(tuned, number=TESTED)
    return {
        "base_answers_and_stops": base_answers_and_stops(base, questions(UNSEEN, number=TESTED)),
        "unseen_exact_match": scores.unseen,
        "seen_exact_match": scores.seen,
        "stop_rate": scores.stops,
        "before": answered[0],
        "after": answered[1],
    }


def _arithmetic(before: Sequence[GradedToken], after: Sequence[GradedToken] | None = None) -> Table:
    """Token, p, -ln p; twice where there is an after."""
    table = Table(box=None, pad_edge=True, header_style="dim")
    table.add_column("token", style="black on pale_green1")
    for heading in ("p", "-ln p") if after is None else ("p before", "-ln p", "p after", "-ln p"):
        table.add_column(heading, justify="right")
    for k, token in enumerate(before):
        pair = [token] if after is None else [token, after[k]]
        numbers = [text for t in pair for text in (f"{t.probability:.3f}", f"{t.surprise:.3f}")]
        table.add_row(Text(visible(token.text)), *numbers)
    return table


def _title(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}[/]  [bold]{text}[/]", soft_wrap=True)
