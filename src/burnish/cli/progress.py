"""A run as it is seen in a terminal: one live line for steps, one line each for what is worth keeping."""

from __future__ import annotations

import math
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from burnish.training.events import (
    Audited,
    Drifted,
    Encoding,
    Evaluated,
    Event,
    Ready,
    Sampled,
    Saved,
    Skipped,
    Stepped,
    Stopped,
    Warned,
)

QUIET_SECONDS = 10.0
"""Where there is no terminal to redraw, a step is printed at most this often."""

SOON_SECONDS = 2.0
"""What takes less is not reported on."""

RECENT_STEPS = 20


class TrainingDisplay:
    """Draws events as they come; used as a context manager, so that the terminal is left tidy."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task("training", numbers="", total=None)
        self._recent: deque[Stepped] = deque(maxlen=RECENT_STEPS)
        self._printed = 0.0
        self._encoding = RowsDone(console)

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._encoding.close()
        self._live.stop()

    def show(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case Encoding():
                self._encoding.show(event.rows, event.of)
            case Ready():
                self._ready(event)
            case Stepped():
                self._stepped(event)
            case Skipped():
                self._say(f"  step {event.step:>6}  [red]batch skipped[/] {escape(event.why)}")
            case Warned():
                self._say(f"  step {event.step:>6}  [yellow]{escape(event.why)}[/]")
            case Audited():
                self._say(f"  [dim]audit: {escape(event.found)}[/]")
            case Evaluated() | Sampled() | Drifted():
                self._judged(event)
            case Saved():
                self._say(f"  step {event.step:>6}  [dim]saved {escape(event.path.name)}[/]")
            case Stopped():
                self._stopped(event)

    def _judged(self, event: Evaluated | Sampled | Drifted) -> None:
        match event:
            case Evaluated():
                mark = " [green]best[/]" if event.best else ""
                self._say(
                    f"  step {event.step:>6}  held-out loss {event.loss:.4f}  accuracy {event.accuracy:.1%}{mark}"
                )
            case Sampled():
                for sample in event.samples:
                    ended = "stopped" if sample["finish_reason"] == "stop" else "did not stop"
                    asked, said = _short(sample["prompt"]), _short(sample["text"])
                    self._say(f"  step {event.step:>6}  [dim]{asked}[/] -> {said} [dim]({ended})[/]")
            case Drifted():
                mark = " [yellow]past its budget[/]" if event.breached else ""
                self._say(
                    f"  step {event.step:>6}  forgetting: {escape(event.probe)} {event.drift:+.4f} "
                    f"[dim]\\[{event.low:+.4f}, {event.high:+.4f}] of {event.budget:g}[/]{mark}"
                )

    def _ready(self, event: Ready) -> None:
        self._encoding.close()
        self._live.start()
        share = event.trainable / event.parameters
        self._say(f"[bold]{escape(str(event.run))}[/]")
        self._say(
            f"  {event.rows:,} rows to train on, {event.held_out_rows:,} held out; {event.num_steps:,} updates of "
            f"{event.trainable:,} parameters ({share:.2%} of {event.parameters:,})"
        )
        if event.adapted:
            self._say(f"  adapter on {escape(event.adapted)}")
        for note in event.notes:
            self._say(f"  [yellow]note[/] {escape(note)}")
        self._live.update(self._task, total=event.num_steps, completed=event.start_step)

    def _stepped(self, event: Stepped) -> None:
        self._recent.append(event)
        numbers = describe_step(event, list(self._recent))
        self._live.update(self._task, completed=event.step, numbers=numbers)
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._printed > QUIET_SECONDS or event.step == 1):
            self._printed = now
            self._say(f"  {numbers}")

    def _stopped(self, event: Stopped) -> None:
        if self._recent and not self._console.is_terminal:
            self._say(f"  {describe_step(self._recent[-1], list(self._recent))}")
        words = {
            "finished": "all updates done",
            "forgetting": "stopped: the base's general ability fell past the budget",
            "early_stopping": "stopped early: the held-out loss no longer falls",
            "interrupted": "interrupted, and saved",
        }
        self._say(f"  step {event.step:>6}  {words[event.why]}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


class RowsDone:
    """How far the encoding of rows is, shown only where it takes long enough to ask."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = self._printed = time.monotonic()
        self._live: Progress | None = None

    def show(self, done: int, total: int) -> None:
        """So many rows of so many are done."""
        now = time.monotonic()
        if now - self._started < SOON_SECONDS:
            return
        if self._console.is_terminal:
            if self._live is None:
                self._live = Progress(
                    TextColumn("encoding"),
                    BarColumn(24),
                    MofNCompleteColumn(),
                    console=self._console,
                    transient=True,
                )
                self._live.add_task("rows", total=total)
                self._live.start()
            self._live.update(self._live.task_ids[0], completed=done)
        elif now - self._printed > QUIET_SECONDS:
            self._printed = now
            self._console.print(f"  {done:,} of {total:,} rows encoded", highlight=False)

    def close(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def describe_step(event: Stepped, recent: list[Stepped]) -> str:
    """One update in numbers; speed and time left from the last few updates."""
    seconds = sum(step.seconds for step in recent)
    graded = sum(step.graded_tokens for step in recent) / seconds
    tokens = sum(step.tokens for step in recent) / seconds
    left = math.ceil((event.num_steps - event.step) * seconds / len(recent))
    return (
        f"step {event.step:,}/{event.num_steps:,}  epoch {event.epoch:.2f}  loss {event.loss:.4f}  "
        f"lr {event.learning_rate:.2e}  grad {event.grad_norm:.2f}  {graded:,.0f} graded tok/s ({tokens:,.0f} all)  "
        f"{event.memory_bytes / 2**30:.1f} GiB  {left // 60}:{left % 60:02d} left"
    )


def _short(value: object, limit: int = 60) -> str:
    text = " ".join(str(value).split())
    return escape(text if len(text) <= limit else text[: limit - 1] + "…")
