"""Everything crossed, beside one process: ranks, sharding, method, trees, accumulation, uneven rows, long context.

    python -m tests.parallel.invariance            2, 3 and 4 ranks over gloo; a table of the largest differences

A case is one update's loss and gradient, and the weights after ten. Rows are of uneven length; an update of 7 rows is
four packs of two rows, so that ranks have different numbers of them, or one pack, so that all ranks but one have none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.conftest import SUBJECTS, write_jsonl
from tests.parallel.gang import Job, apart, do_steps, gang, results

Keys = dict[str, Any]

ROWS_AN_UPDATE = 7
PACKS = {"four packs": 2, "one pack": ROWS_AN_UPDATE}
METHODS: dict[str, Keys] = {
    " ".join((adapter, "tree" if tree else "packed", packs)): {
        "adapter": adapter,
        "share_prefixes": tree,
        "micro_batch_size": PACKS[packs],
    }
    for adapter, tree, packs in product(("full", "lora"), (False, True), PACKS)
}
"""What is computed; who computes it is in `LAYOUTS`."""

LAYOUTS: dict[int, dict[str, Keys]] = {
    2: {"context 2": {"context_parallel": 2}},
    3: {},
    4: {
        "hybrid": {"data_parallel": "hybrid"},
        "context 4": {"context_parallel": 4},
        "context 2, shard": {"context_parallel": 2, "data_parallel": "shard"},
    },
}
for _layouts in LAYOUTS.values():
    _layouts |= {how: {"data_parallel": how} for how in ("replicate", "shard")}


def make_rows(path: Path, count: int = 80) -> Path:
    """Uneven rows, of which several ask the same long question, so that trees share it."""
    question = "Of all that you know of the world, and of what was said before, tell me now what this is: "
    return write_jsonl(
        path,
        [
            {
                "messages": [
                    {"role": "user", "content": question + SUBJECTS[n % 3]},
                    {"role": "assistant", "content": f"It is number {n}" + " and more" * (n % 7) + "."},
                ]
            }
            for n in range(count)
        ],
    )


def keys_of(name: str, model: Path, data: Path, out: Path, **more: Any) -> Keys:
    """The recipe of a case, small, in fp32."""
    return {
        "model": str(model),
        "datasets": str(data),
        "output_dir": str(out),
        "run_name": name,
        "dtype": "float32",
        "global_batch_size": ROWS_AN_UPDATE,
        "micro_batch_size": 2,
        "learning_rate": 1e-4,
        "max_steps": 10,
        "val_set_size": 5,
        **more,
    }


def jobs_of(layouts: dict[str, Keys], model: Path, rows: Path, out: Path) -> list[Job]:
    """A job for each way to compute each method."""
    return [
        {
            "name": f"{layout}: {method}",
            "kind": "steps",
            "keys": keys_of(
                f"{layout}-{method}".replace(",", "").replace(" ", "-"), model, rows, out, **who, **what
            ),
        }
        for (layout, who), (method, what) in product(layouts.items(), METHODS.items())
    ]


def alone(model: Path, rows: Path, out: Path) -> dict[str, dict[str, Tensor]]:
    """One process's results by method."""
    return {
        job["name"].partition(": ")[2]: do_steps(job["keys"])
        for job in jobs_of({"alone": {}}, model, rows, out)
    }


def differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """The first loss, relative; the gradient, over its largest number; the weights after ten updates."""
    largest = max(float(theirs[name].abs().max()) for name in theirs if name.startswith("gradient/"))
    return {
        "loss": abs(float(ours["loss"] - theirs["loss"])) / float(theirs["loss"]),
        "gradient": apart(ours, theirs, "gradient/"),
        "gradient, relative": apart(ours, theirs, "gradient/") / largest,
        "weights": apart(ours, theirs, "weight/"),
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: the largest difference of each layout over all methods."""
    lines = [
        "| ranks | cases | loss | gradient | of the largest | weights after ten |",
        "|---|---|---|---|---|---|",
    ]
    for layout in dict.fromkeys(name.partition(": ")[0] for name in found):
        cases = [value for name, value in found.items() if name.partition(": ")[0] == layout]
        worst = [max(case[kind] for case in cases) for kind in cases[0]]
        lines.append(f"| {layout} | {len(cases)} | " + " | ".join(f"{value:.1e}" for value in worst) + " |")
    return "\n".join(lines)


def make_model(place: Path) -> Path:
    """A small Llama of random weights with grouped keys, and a tokenizer of bytes."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from ranks import SMALL, make_model

    return Path(make_model(place, {**SMALL, "num_key_value_heads": 2}))


def main() -> None:
    """Run all cases and print the table."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--ranks", type=int, nargs="+", default=[*LAYOUTS])
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="burnish-invariance-") as temporary:
        place, found = Path(temporary), {}
        os.environ["BURNISH_CACHE"] = f"{place}/cache"
        model, rows = make_model(place / "model"), make_rows(place / "rows.jsonl")
        known = alone(model, rows, place / "alone")
        for size in given.ranks:
            out = place / str(size)
            jobs = jobs_of(LAYOUTS[size], model, rows, out)
            gang(jobs, size, out, limit=1800)
            for job in jobs:
                name = f"{size}, {job['name']}"
                found[name] = differences(results(out, job), known[job["name"].partition(": ")[2]])
                print(name, {kind: f"{value:.1e}" for kind, value in found[name].items()}, flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
