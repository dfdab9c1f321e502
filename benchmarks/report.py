"""From raw runs to a table and a picture. No ratio is printed between runs whose losses differ."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "benchmarks.md"
LOADED = 0.10
"""Share of the machine that others may use before the figures carry a warning."""

TOLERANCE = {"bfloat16": 5e-3, "float32": 1e-4}

Run = dict[str, Any]
Entry = dict[str, Any]


def seconds(run: Run, first: int, last: int) -> float:
    """From the end of step `first` to the end of step `last`; 0 is where training begins."""
    return float(run["ends"][last - 1] - (run["ends"][first - 1] if first else run["ready"]))


def calm(entry: Entry, arm: str) -> list[Run]:
    """The runs during which others left the machine alone; all of them where there is none."""
    runs: list[Run] = entry["runs"][arm]
    return [run for run in runs if run["others"] <= LOADED] or runs


def rates(entry: Entry, arm: str, first: int = 1, last: int | None = None) -> list[float]:
    """Tokens a second of each run; the tokens are those of the rows, without padding, for every arm."""
    speeds = []
    for run in calm(entry, arm):
        end = last or len(run["ends"])
        speeds.append(sum(entry["facts"]["tokens_by_step"][first:end]) / seconds(run, first, end))
    return speeds


def loss_difference(entry: Entry, arm: str) -> float:
    """The largest difference to burnish's loss at any step that both made, within the gate."""
    gate = entry.get("gate_steps")
    mine = entry["runs"]["burnish"][0]["losses"][:gate]
    return max(
        abs(a - b) for run in entry["runs"][arm] for a, b in zip(run["losses"][:gate], mine, strict=False)
    )


def ratios(entry: Entry, arm: str) -> list[float] | None:
    """How many times longer the arm took than burnish for the same steps after the first, each run against each.

    None where the two did not train the same: a ratio of different runs says nothing.
    """
    if loss_difference(entry, arm) > TOLERANCE[entry["dtype"]]:
        return None
    pairs = product(calm(entry, arm), calm(entry, "burnish"))
    return [seconds(a, 1, len(a["ends"])) / seconds(b, 1, len(a["ends"])) for a, b in pairs]


def share(entry: Entry, arm: str, peak: dict[str, float]) -> float:
    """Necessary FLOPs a second over what this machine multiplies, after the first step."""
    flops = entry["facts"][f"flops_{entry['method']}_by_step"]
    of_runs = [
        sum(flops[1 : len(run["ends"])]) / seconds(run, 1, len(run["ends"])) / peak[entry["dtype"]]
        for run in calm(entry, arm)
    ]
    return statistics.median(of_runs)


def median(entry: Entry, arm: str, key: str) -> float:
    return statistics.median(run[key] for run in calm(entry, arm))


def first_step(entry: Entry, arm: str) -> float:
    return statistics.median(run["ends"][0] for run in calm(entry, arm))


def markdown(result: dict[str, Any]) -> str:
    """The whole section of the page."""
    parts = [header(result)]
    if result["name"] == "memory":
        parts.append(memory_table(result))
    else:
        for entry in result["cases"]:
            parts.append(case_table(entry, result["gemm_peak"]))
            if entry.get("gate_steps"):
                parts.append(long_table(entry))
    return "\n\n".join(parts) + "\n"


def header(result: dict[str, Any]) -> str:
    peak, versions = result["gemm_peak"], result["versions"]
    mine = ", ".join(f"{name} {version}" for name, version in versions["burnish"].items())
    lines = [
        f"{result['date']}, commit {result['commit']}; {result['machine']}. Shape `{result['shape']}`; "
        f"GEMM peak "
        f"at its own shapes {peak['bfloat16'] / 1e9:.0f} (bf16) and {peak['float32'] / 1e9:.0f} (fp32) GFLOP/s.",
        f"burnish's environment: {mine}.",
    ]
    if "peers" in versions:
        lines.append(
            "The peers': "
            + ", ".join(f"{name} {version}" for name, version in versions["peers"].items())
            + "."
        )
    if result["keys"]:
        lines.append(f"burnish was told besides: {' '.join(result['keys'])}.")
    everything = [
        (run, run not in calm(entry, arm))
        for entry in result["cases"]
        for arm, runs in entry["runs"].items()
        for run in runs
    ]
    left_out = result.get("thrown_away", 0) + sum(is_out for _, is_out in everything)
    if left_out:
        lines.append(
            f"{left_out} of {len(everything) + result.get('thrown_away', 0)} runs are left out: "
            f"other processes used more than {LOADED:.0%} of the machine meanwhile."
        )
    busiest = max(run["others"] for run, is_out in everything if not is_out)
    if busiest > LOADED:
        lines.append(
            f"**The machine was loaded: other processes used up to {busiest:.0%} of it during a run. "
            "Do not quote these figures.**"
        )
    return "\n".join(lines)


def case_table(entry: Entry, peak: dict[str, float]) -> str:
    facts = entry["facts"]
    counts = sorted({len(calm(entry, arm)) for arm in entry["runs"]})
    rounds = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    title = f"### {entry['name']}"
    what = (
        f"{facts['sequences']} sequences, {facts['tokens']:,} tokens "
        f"({facts['graded_tokens'] / facts['tokens']:.0%} graded, "
        f"{sum(facts['distinct_tokens_by_step']) / facts['tokens']:.0%} distinct), {facts['steps']} steps; "
        f"median of {rounds}, in brackets the lowest and highest; from {facts['source']}."
    )
    rows = [
        "| | tok/s | burnish is faster by | training, s | without step 1, s | launch to step 1, s | peak RSS, MB "
        "| burnish holds | share of the machine | loss differs by |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [case_row(entry, arm, peak) for arm in entry["runs"]]
    return "\n".join([title, "", what, "", *rows])


def case_row(entry: Entry, arm: str, peak: dict[str, float]) -> str:
    runs = calm(entry, arm)
    made = min(len(run["ends"]) for run in runs)
    note = "" if made == entry["facts"]["steps"] else f" ({made} steps)"
    speed = lead = memory = difference = portion = "-"
    equal = "burnish" in entry["runs"] and loss_difference(entry, arm) <= TOLERANCE[entry["dtype"]]
    timed = entry["dtype"] == "bfloat16"  # the fp32 case proves equality; one short run of it times nothing
    if timed and made > 1:
        speed = spread(rates(entry, arm), "{:,.0f}")
        portion = f"{share(entry, arm, peak):.0%}"
    if arm != "burnish" and "burnish" in entry["runs"]:
        difference = f"{loss_difference(entry, arm):.1e}"
        if not equal:
            lead = memory = "not the same run"
        elif timed and made > 1:
            lead = spread(ratios(entry, arm) or [], "{:.2f}x")
            memory = f"{median(entry, 'burnish', 'peak') / median(entry, arm, 'peak'):.2f} of it"
    whole = statistics.median(seconds(run, 0, made) for run in runs)
    steady = statistics.median(seconds(run, 1, made) for run in runs)
    return (
        f"| {arm}{note} | {speed} | {lead} | {whole:.1f} | {steady:.1f} | {first_step(entry, arm):.1f} "
        f"| {median(entry, arm, 'peak') / 2**20:,.0f} | {memory} | {portion} | {difference} |"
    )


def spread(values: Sequence[float], form: str) -> str:
    middle = form.format(statistics.median(values))
    if len(values) < 2:
        return middle
    return f"{middle} ({form.format(min(values))} to {form.format(max(values))})"


def long_table(entry: Entry) -> str:
    """Speed of the first and the last tenth of the steps, and memory on the way."""
    rows = [
        "| | tok/s at the start | at the end | RSS after step 6, MB | 120 | last | mean loss of the last 50 steps |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for arm, runs in entry["runs"].items():
        run = runs[0]
        steps = len(run["ends"])
        tenth = max(1, steps // 10)
        early, late = rates(entry, arm, 1, 1 + tenth)[0], rates(entry, arm, steps - tenth, steps)[0]
        held = [run["resident"][min(step, steps) - 1] / 2**20 for step in (6, 120, steps)]
        loss = statistics.mean(run["losses"][-50:])
        rows.append(
            f"| {arm} | {early:,.0f} | {late:,.0f} | "
            + " | ".join(f"{h:,.0f}" for h in held)
            + f" | {loss:.4f} |"
        )
    gate = entry["gate_steps"]
    return "\n".join([*rows, "", f"Losses are compared step by step over the first {gate} steps."])


def memory_table(result: dict[str, Any]) -> str:
    rows = ["| rows | steps | peak RSS in training, MB | RSS after step 6, MB | after the last step, MB |"]
    rows.append("|---|---|---|---|---|")
    for entry in result["cases"]:
        run = entry["runs"]["burnish"][0]
        sixth = run["resident"][min(6, len(run["resident"])) - 1]
        figures = (run["peak_in_training"], sixth, run["resident"][-1])
        rows.append(
            f"| {entry['facts']['rows']:,} | {len(run['ends'])} | "
            + " | ".join(f"{f / 2**20:,.0f}" for f in figures)
            + " |"
        )
    return "\n".join(rows)


def write(result: dict[str, Any], text: str) -> None:
    """Put the section between its marks in docs/benchmarks.md, and draw the picture."""
    name = result["name"]
    begin, end = f"<!-- begin {name}: written by `make bench` -->", f"<!-- end {name} -->"
    page = PAGE.read_text(encoding="utf-8")
    if begin not in page:
        sys.exit(f"{PAGE} has no line {begin!r} to write at")
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    DOCS.joinpath("benchmarks").mkdir(exist_ok=True)
    DOCS.joinpath("benchmarks", f"{name}.json").write_text(json.dumps(result) + "\n")
    if name in ("s30", "135m"):
        draw(result, DOCS / "benchmarks" / f"{name}.png")


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars of tokens a second and of peak memory, by workload and arm; left out where matplotlib is not there."""
    try:
        import matplotlib
    except ImportError:
        sys.stderr.write("no matplotlib: no picture (pip install 'burnish[plot]')\n")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    timed = [entry for entry in result["cases"] if entry["dtype"] == "bfloat16"]
    colours = {"trl-defaults": "#c9c9c9", "trl-best": "#8f9bb3", "hf-best": "#5b6b8c", "burnish": "#c8642b"}
    figure, (speed, memory) = pyplot.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    for place, (axes, title) in enumerate(
        ((speed, "tokens a second, after step 1"), (memory, "peak memory, MB"))
    ):
        for number, arm in enumerate(colours):
            have = [(x, entry) for x, entry in enumerate(timed) if comparable(entry, arm)]
            if not have:
                continue
            values = [
                rates(e, arm) if place == 0 else [r["peak"] / 2**20 for r in e["runs"][arm]] for _, e in have
            ]
            middles = [statistics.median(v) for v in values]
            below = [m - min(v) for m, v in zip(middles, values, strict=True)]
            above = [max(v) - m for m, v in zip(middles, values, strict=True)]
            spots = [x + 0.2 * number - 0.3 for x, _ in have]
            bars = axes.bar(spots, middles, 0.19, yerr=[below, above], color=colours[arm], label=arm)
            axes.bar_label(bars, [f"{m:,.0f}" for m in middles], fontsize=7, padding=2)
        axes.set_xticks(range(len(timed)), [entry["name"] for entry in timed])
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    speed.legend(frameon=False)
    figure.suptitle(
        f"{result['shape']}, {result['machine']}, {result['date']}: the same tokens, steps and losses",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def comparable(entry: Entry, arm: str) -> bool:
    """Whether the arm was run here, for more than one step, and trained what burnish trained."""
    if arm not in entry["runs"] or min(len(run["ends"]) for run in entry["runs"][arm]) < 2:
        return False
    return "burnish" not in entry["runs"] or loss_difference(entry, arm) <= TOLERANCE[entry["dtype"]]


def machine() -> str:
    """Processor, cores in use and memory."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown processor",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"
