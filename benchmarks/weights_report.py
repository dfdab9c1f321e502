"""From the cells of `weights.py` to a table, what it says about two claims, and a picture: quality against memory."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "weights.md"
PICTURE = DOCS / "benchmarks" / "weights.png"
BEGIN, END = "<!-- begin weights: written by `make bench-weights` -->", "<!-- end weights -->"

Cell = dict[str, Any]


def write_report(cells: list[Cell], epochs: int) -> None:
    """Put table and findings between the page's marks, and draw the picture."""
    rows = [
        row for arm in dict.fromkeys(cell["arm"] for cell in cells) if (row := summarise(cells, arm, epochs))
    ]
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    text = "\n\n".join([header(cells, rows, epochs), table(rows), *findings(rows)])
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    draw(rows)


def summarise(cells: list[Cell], arm: str, epochs: int) -> Cell | None:
    """An arm's rate, scores over its seeds, and costs; None where a part is not measured yet."""
    mine = [cell for cell in cells if cell["arm"] == arm]
    tried = [cell for cell in mine if cell["part"] == "marble" and cell["epochs"] == epochs]
    sized = [cell for cell in mine if cell["part"] == "135m"]
    if not tried or not sized:
        return None
    best = min(tried, key=lambda cell: cell["held_out"])["rate"]
    runs = [cell for cell in tried if cell["rate"] == best]
    rates = sorted({cell["rate"] for cell in tried if cell["seed"] == 0})
    return {
        "arm": arm,
        "rate": best,
        "rates": rates,
        "at_an_end": best in (rates[0], rates[-1]),
        "seeds": len(runs),
        "held_out": [cell["held_out"] for cell in runs],
        "unseen": [cell["unseen"] for cell in runs],
        "seen": [cell["seen"] for cell in runs],
        "trainable": runs[0]["trainable"],
        "share": runs[0]["trainable"] / runs[0]["parameters"],
        "step": statistics.median(cell["step_seconds"] for cell in runs),
        "kl": [one["merge"][0]["mean_kl"] for one in runs if one.get("merge")],
        "peak_marble": statistics.median(cell["peak_bytes"] for cell in runs),
        "trainable_135m": sized[0]["trainable"],
        "share_135m": sized[0]["trainable"] / sized[0]["parameters"],
        "peak": sized[0]["peak_bytes"],
        "step_135m": sized[0]["step_seconds"],
        "linear": sized[0]["linear_layers_of_bf16"],
    }


def header(cells: list[Cell], rows: Sequence[Cell], epochs: int) -> str:
    marble = [cell for cell in cells if cell["part"] == "marble" and cell["epochs"] == epochs]
    versions = ", ".join(f"{name} {version}" for name, version in cells[-1]["versions"].items())
    steps = ", ".join(sorted({str(cell["steps"]) for cell in marble if "steps" in cell}))
    return (
        f"{cells[-1]['date']}, commits {', '.join(sorted({cell['commit'] for cell in cells}))}; {versions}. "
        f"{len(marble)} runs on marble, each {epochs} passes ({steps} steps of 16 rows), {len(rows)} methods, "
        f"{marble[0]['questions']} questions of each half."
    )


def table(rows: Sequence[Cell]) -> str:
    lines = [
        "| method | best rate (tried) | seeds | held-out loss, mean (lowest to highest) | unseen half | seen half "
        "| trained on marble | s a step | trained of 135M | peak of 135M, MB | s a step of 135M |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mark = " (at an end)" if row["at_an_end"] else ""
        lines.append(
            f"| {row['arm']} | {row['rate']:g} of {row['rates'][0]:g} to {row['rates'][-1]:g}, "
            f"{len(row['rates'])}{mark} | {row['seeds']} | {spread(row['held_out'], '.4f')} "
            f"| {statistics.mean(row['unseen']):.1%} | {statistics.mean(row['seen']):.1%} "
            f"| {row['trainable']:,} ({row['share']:.2%}) | {row['step']:.2f} "
            f"| {row['trainable_135m']:,} ({row['share_135m']:.2%}) | {row['peak'] / 1e6:,.0f} "
            f"| {row['step_135m']:.2f} |"
        )
    return "\n".join(lines)


def spread(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def findings(rows: Sequence[Cell]) -> list[str]:
    """What the figures say about the two claims that this benchmark was made for."""
    by = {row["arm"]: row for row in rows if row["seeds"] > 1}  # a sweep that is not done says nothing yet
    said = []
    if "full" in by:
        full = by["full"]
        for arm in ("lora", "qlora", "dora", "lora_xs"):
            if arm in by:
                said.append(against(by[arm], full))
    if "lora" in by and "qlora" in by:
        ratio = statistics.mean(by["qlora"]["held_out"]) / statistics.mean(by["lora"]["held_out"])
        said.append(
            f"- **qlora against lora**: held-out loss {ratio:.3f} of it; linear layers {by['qlora']['linear']:.3f} of "
            f"bf16; KL from the trained model to the one merged into the original base "
            f"{spread(by['qlora']['kl'], '.4f')} nats a token."
        )
    return ["\n".join(said)] if said else []


def against(row: Cell, full: Cell) -> str:
    memory = row["peak"] / full["peak"] - 1
    loss = statistics.mean(row["held_out"]) - statistics.mean(full["held_out"])
    seeds = max(full["held_out"]) - min(full["held_out"])
    return (
        f"- **{row['arm']} against full**: {memory:+.0%} memory on the 135M shape, {row['share_135m']:.2%} of its "
        f"parameters trained; held-out loss on marble {loss:+.4f} (full's seeds lie {seeds:.4f} apart), exact "
        f"answers on the unseen half {statistics.mean(row['unseen']) - statistics.mean(full['unseen']):+.1%}."
    )


def draw(rows: Sequence[Cell]) -> None:
    """Held-out loss and exact answers against the peak memory of the 135M shape; left out without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        sys.stderr.write("no matplotlib: no picture (pip install 'burnish[plot]')\n")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    for axes, key, title in zip(
        places,
        ("held_out", "unseen"),
        ("held-out loss on marble (lower is better)", "exact answers, unseen half"),
        strict=True,
    ):
        for row in rows:
            middle = statistics.mean(row[key])
            below, above = middle - min(row[key]), max(row[key]) - middle
            axes.errorbar(
                row["peak"] / 1e6, middle, yerr=[[below], [above]], fmt="o", color="#c8642b", capsize=3
            )
            axes.annotate(
                f"{row['arm']} ({row['share_135m']:.2g})".replace("(1)", "(all)"),
                (row["peak"] / 1e6, middle),
                textcoords="offset points",
                xytext=(6, 4),
                fontsize=8,
            )
        axes.set_xlabel("peak memory of a step on the 135M shape, MB")
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "quality against memory; in brackets the trained share of 135M; bars: lowest and highest seed",
        fontsize=10,
    )
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    from weights import STORE

    write_report(json.loads(STORE.read_text()), epochs=2)
