"""A section of the report: its heading, what it found in one sentence, and what shows it; None where nothing is known.

Runs are drawn together: each has a colour and a name, and a report of one run is the same with one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from burnish.report.collect import Run
from burnish.report.markup import Html, join, tag

BASE_COLOUR = 7
"""The base model's colour in every chart: a grey, and never a run's."""


@dataclass(frozen=True, slots=True)
class Section:
    """`finding` is the sentence that a reader in a hurry takes along, or one a line of several runs."""

    anchor: str
    heading: str
    finding: str
    body: Html


Writer = Callable[[Sequence[Run]], Section | None]


def section(anchor: str, heading: str, finding: str, parts: Sequence[object]) -> Section | None:
    """A section of the parts that say something; None where none does."""
    said = [part for part in parts if str(part)]
    return Section(anchor, heading, finding, join(said)) if said else None


def of_run(runs: Sequence[Run], run: Run, words: str) -> str:
    """A name for one run's line: the words alone where there is one run, else with the run's name."""
    return words if len(runs) == 1 else f"{run.name} · {words}" if words else run.name


def colour_of(runs: Sequence[Run], run: Run) -> int:
    """A run's colour; seven, then again."""
    return runs.index(run) % 7


def run_heading(runs: Sequence[Run], run: Run) -> Html:
    """The run's name above its part of a section; nothing in a report of one run."""
    if len(runs) == 1:
        return Html()
    mark = tag("i", class_=f"key c{colour_of(runs, run)}", aria_hidden="true")
    return tag("h3", mark, " ", run.name, class_="run-name")


def note(words: object, kind: str = "note") -> Html:
    """A remark set apart; `kind` is note or warning."""
    return tag("p", words, class_=kind)
