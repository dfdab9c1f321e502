"""`python -m burnish.experiments.reliability [F1 F5 ...] [--trials N] [--seed N] [--write]`: the campaigns.

Without `--trials` a campaign has its full size. `--write` puts its line into the table of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import platform
import tempfile
import time
from pathlib import Path

from burnish.experiments.entry import enter
from burnish.experiments.reliability.outcome import Outcome

PAGE = Path("docs/reliability.md")
HEAD = "| campaign | what is done | trials | failures | 95% upper bound | seed | took | of what |"


CAMPAIGNS: dict[str, tuple[str, str, int | None]] = {
    "F1": ("kills", "kills", 200),
    "F2": ("saves", "fault_points", None),
    "F3": ("kills", "signals", 50),
    "F4": ("saves", "disk_faults", None),
    "F5": ("saves", "damage", 500),
    "F6": ("kills", "company", 20),
    "F7": ("readers", "fuzz_readers", 50_000),
    "F8": ("conversations", "random_conversations", 20_000),
    "F9": ("cuts", "cut_invariance", 300),
    "F10": ("reference", "differential", 500),
    "F11": ("bombs", "bombs", 5_000),
    "F12": ("artifacts", "mutate_artifacts", 10_000),
    "F15": ("mutants", "mutate_own", 300),
    "F16": ("soak", "soak", 60),
}
"""Each campaign's module and function, and its full size; None where that follows from what there is."""


def run_campaign(code: str, place: Path, *, seed: int, trials: int | None = None) -> Outcome:
    """One campaign in an empty folder; `trials` below its full size make a reduced form."""
    module, function, size = CAMPAIGNS[code]
    # Only what is asked for is imported: F7 holds the readers to their memory, and torch alone would fill it.
    run = getattr(importlib.import_module(f"burnish.experiments.reliability.{module}"), function)
    started = time.perf_counter()
    keys = {} if size is None else {"trials": trials or size}
    outcome: Outcome = run(place, seed=seed, **keys)
    outcome.seconds = time.perf_counter() - started
    return outcome


def main() -> None:
    """Run the campaigns that were named, one after the other; exit code 1 where one has failures."""
    parser = argparse.ArgumentParser(prog="python -m burnish.experiments.reliability")
    parser.add_argument("campaigns", nargs="*", default=list(CAMPAIGNS), help="F1 F2 ...; all without")
    parser.add_argument("--trials", type=int, help="a reduced form")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE}")
    asked = parser.parse_args()
    if unknown := [code for code in asked.campaigns if code not in CAMPAIGNS]:
        parser.error(f"no campaign {' '.join(unknown)}; there are {' '.join(CAMPAIGNS)}")
    failed = 0
    for code in asked.campaigns:
        with tempfile.TemporaryDirectory(prefix=f"burnish-{code}-") as place:
            outcome = run_campaign(code, Path(place), seed=asked.seed, trials=asked.trials)
        print(outcome, flush=True)
        failed += bool(outcome.failures)
        if asked.write:
            write_down(outcome, PAGE)
    raise SystemExit(1 if failed else 0)


def write_down(outcome: Outcome, page: Path) -> None:
    """Put a campaign's line, with date and machine, into the page's table: new, or in the place of its last one."""
    text = page.read_text(encoding="utf-8")
    head, table = text.split(HEAD, 1)
    lines = table.splitlines()
    rows = [line for line in lines if line.startswith("| F") and not line.startswith(f"| {outcome.code} |")]
    after = lines[1 + next((k for k, line in enumerate(lines[1:]) if not line.startswith("|")), len(lines)) :]
    today = f"{datetime.date.today().isoformat()}, {platform.machine()}, {platform.python_version()}"
    rows.append(f"{outcome.row()[:-2]}; {today} |")
    rows.sort(key=lambda line: int(line.split("|")[1].strip()[1:]))
    page.write_text(head + "\n".join([HEAD, "|" + "---|" * 8, *rows, *after]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    enter(main)
