"""The whole comparison in one command: burnish, TRL and plain transformers, in turn, each run in a fresh process.

make bench                                four workloads, three rounds; docs/benchmarks.md is rewritten
python benchmarks/run.py --smoke          a toy model, seconds: does the harness work?
python benchmarks/run.py --tune           find the peers' best settings on this machine (tuned.json)
python benchmarks/run.py --long           300 steps: speed and memory at the start and at the end
python benchmarks/run.py --shape 135m     SmolLM2's shape, alpaca only
python benchmarks/run.py --memory         burnish's memory against the number of rows and of steps
python benchmarks/run.py --set compile=true ...   other recipe keys for burnish's arm
python benchmarks/run.py --table FILE     the page again from a run's figures, the GEMM peak measured anew
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from arms import ARMS, CANDIDATES, HERE, TUNED, Bench, Case, best_of, settings_of
from measure import RunFailed, Watched
from workloads import SHARED

import report

CASES = (Case("alpaca"), Case("alpaca", "lora"), Case("shared_prompt"), Case("reasoning"))
EXACT = Case("alpaca", dtype="float32")
SIZES = {
    "s30": {"alpaca": 48, "shared_prompt": 48, "reasoning": 8},
    "135m": {"alpaca": 24},
    "tiny": {"alpaca": 16, "shared_prompt": 16, "reasoning": 4},
    "long": {"alpaca": 2400},
    "memory": {"alpaca": 960, "alpaca_1k": 1000, "alpaca_20k": 20_000},
}
LONG_GATE = 20
"""Steps of a long run whose losses must agree one by one: roundings drift apart, and later only means are told."""


def main() -> None:
    given = read_arguments()
    if given.table:
        finish(json.loads(given.table.read_text()), given)
        return
    shape = "tiny" if given.smoke else given.shape
    kind = next((k for k in ("tune", "long", "memory") if getattr(given, k)), "bench")
    sizes = SIZES[kind if kind in SIZES and not given.smoke else shape]
    if given.smoke and kind == "memory":
        sizes = {"alpaca": 96, "alpaca_1k": 100, "alpaca_20k": 1000}
    if not SHARED.exists():
        say(
            f"{SHARED} is not there: the rows are burnish's own demonstrations, "
            "and the figures are not to be compared with published ones"
        )
    folder = given.folder / ("" if kind in ("bench", "tune") else kind)
    tool(
        "workloads.py",
        str(folder),
        "--shape",
        shape,
        "--sizes",
        ",".join(f"{k}={v}" for k, v in sizes.items()),
    )
    bench = Bench(folder / shape, given.peers, dict(parse_key(key) for key in given.set))
    arms = [arm for arm in given.arms.split(",") if arm == "burnish" or given.peers.exists()]
    if len(arms) < len(given.arms.split(",")):
        say(f"no interpreter at {given.peers}: only burnish is measured; `make bench` installs the peers")
    cases = [case for case in CASES if case.workload in sizes]
    if given.cases:
        cases = [case for case in cases if asked(case, given.cases)]
    match kind:
        case "tune":
            tune(bench, cases, [arm for arm in arms if arm.endswith("best")])
            return
        case "long":
            body = long_runs(bench, [arm for arm in arms if arm != "trl-defaults"])
        case "memory":
            body = memory_runs(bench)
        case _:
            exact = EXACT if given.cases is None or asked(EXACT, given.cases) else None
            body = compare(bench, cases, arms, given.rounds, exact=exact)
    name = kind if kind != "bench" else shape
    result = {"name": name, "shape": shape, **about(given), **body}
    finish(result, given)


def finish(result: dict[str, Any], given: argparse.Namespace) -> None:
    """Measure what the machine multiplies, keep the figures, print and write the page."""
    if "gemm_peak" not in result:  # a table that is printed again has that of its own hour
        result["gemm_peak"] = json.loads(tool("arithmetic.py", result["shape"]))
    target = given.out or given.folder / "results" / f"{result['name']}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1))
    say(f"figures: {target}")
    text = report.markdown(result)
    print(text)
    if given.write:
        report.write(result, text)


def asked(case: Case, words: str) -> bool:
    return any(word in case.name for word in words.split(";"))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ("--smoke", "--tune", "--long", "--memory", "--write"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--shape", choices=("s30", "135m"), default="s30")
    parser.add_argument("--arms", default=",".join(ARMS), help="separated by commas")
    parser.add_argument("--cases", help="parts of names, as in 'alpaca, lora;reasoning'")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--peers", type=Path, default=HERE / ".venv-peers" / "bin" / "python")
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "bench")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--table", type=Path, metavar="FILE")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.smoke else 3)
    return given


def compare(
    bench: Bench, cases: Sequence[Case], arms: Sequence[str], rounds: int, *, exact: Case | None
) -> dict[str, Any]:
    """Every case in `rounds` rounds of all arms, who begins rotating; then one short run each in fp32."""
    done = []
    for case in cases:
        facts = bench.facts(case.workload)
        taking_part = [arm for arm in arms if arm != "trl-defaults" or case.workload != "reasoning"]
        runs: dict[str, list[Watched]] = {arm: [] for arm in taking_part}
        for number in range(rounds):
            turn = number % len(taking_part)
            for arm in [*taking_part[turn:], *taking_part[:turn]]:
                runs[arm].append(
                    undisturbed(bench, arm, case, steps_of(arm, facts["steps"]), f"round {number + 1}")
                )
        done.append(entry(case, facts, runs))
    if exact is not None:
        facts = bench.facts(exact.workload)
        best = [arm for arm in arms if arm != "trl-defaults"]
        done.append(
            entry(
                exact,
                facts,
                {arm: [start(bench, arm, exact, min(3, facts["steps"]), "fp32")] for arm in best},
            )
        )
    return {"cases": done, "thrown_away": bench.thrown_away}


def steps_of(arm: str, steps: int) -> int:
    """The slowest arm makes the first two of the same steps; its ratio is over the second, which both made."""
    return min(2, steps) if arm == "trl-defaults" else steps


def long_runs(bench: Bench, arms: Sequence[str]) -> dict[str, Any]:
    facts = bench.facts("alpaca")
    case = Case("alpaca")
    runs = {arm: [start(bench, arm, case, facts["steps"], "long")] for arm in arms}
    return {"cases": [entry(case, facts, runs) | {"gate_steps": LONG_GATE}]}


def memory_runs(bench: Bench) -> dict[str, Any]:
    """burnish alone: six steps over 1,000 rows and over 20,000; then 120 steps."""
    done = []
    for workload, steps in (("alpaca_1k", 6), ("alpaca_20k", 6), ("alpaca", 120)):
        facts, case = bench.facts(workload), Case(workload)
        run = start(bench, "burnish", case, min(steps, facts["steps"]), f"{facts['rows']} rows")
        done.append(entry(case, facts, {"burnish": [run]}))
    return {"cases": done}


def tune(bench: Bench, cases: Sequence[Case], arms: Sequence[str]) -> None:
    """Three steps of each candidate; the fastest over steps 2 and 3 is the peer's best from then on."""
    found: dict[str, Any] = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    for case in cases:
        for arm in arms:
            speeds = []
            candidates = list(CANDIDATES)
            if case.method == "lora":  # the base at rest in fp32, cast by autocast at every use
                candidates += [{**c, "base_dtype": "float32"} for c in CANDIDATES if c["micro"] in (1, 8)]
            for candidate in candidates:
                seen = start(bench, arm, case, 3, str(candidate), settings=best_of(candidate, case))
                tokens = sum(bench.facts(case.workload)["tokens_by_step"][1:3])
                speeds.append((round(tokens / seen.seconds(1), 1), candidate))
            speeds.sort(key=lambda pair: -pair[0])
            tried = [{"tokens_per_second": speed, **candidate} for speed, candidate in speeds]
            trainer = arm.partition("-")[0]
            found.setdefault(case.name, {})[trainer] = {"best": speeds[0][1], "tried": tried}
            TUNED.write_text(json.dumps({**found, "date": str(date.today())}, indent=1) + "\n")
    say(f"written: {TUNED}")


def undisturbed(bench: Bench, arm: str, case: Case, steps: int, what: str) -> Watched:
    """A run; where others used the machine meanwhile, another, at most twice. All stay in runs.jsonl."""
    seen = start(bench, arm, case, steps, what)
    for _ in range(2):
        if seen.others <= report.LOADED:
            break
        bench.thrown_away += 1
        seen = start(bench, arm, case, steps, f"{what} again")
    return seen


def start(
    bench: Bench, arm: str, case: Case, steps: int, what: str, settings: dict[str, Any] | None = None
) -> Watched:
    sys.stderr.write(f"{case.name}: {arm}, {what} ... ")
    sys.stderr.flush()
    try:
        seen = bench.start(arm, case, steps, settings)
    except RunFailed as error:
        sys.exit(str(error))
    with (bench.folder / "runs.jsonl").open("a") as file:  # kept even where a later run fails
        file.write(json.dumps({"case": case.name, "arm": arm, "what": what, **asdict(seen)}) + "\n")
    loaded = f", others busy {seen.others:.0%}" if seen.others > report.LOADED else ""
    say(f"{seen.seconds(0):.1f} s for {len(seen.ends)} steps, {seen.peak >> 20} MB{loaded}")
    return seen


def entry(case: Case, facts: dict[str, Any], runs: dict[str, list[Watched]]) -> dict[str, Any]:
    settings = {arm: settings_of(arm, case) for arm in runs if arm != "burnish"}
    plain = {arm: [asdict(run) for run in watched] for arm, watched in runs.items()}
    return {"name": case.name, **asdict(case), "facts": facts, "settings": settings, "runs": plain}


def about(given: argparse.Namespace) -> dict[str, Any]:
    """The machine, the day and every version that had a part in it."""
    show = (
        "import json, platform, importlib.metadata as m\n"
        "names = ('torch', 'transformers', 'peft', 'trl', 'accelerate', 'datasets', 'burnish')\n"
        "have = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({'python': platform.python_version(), **{n: have[n] for n in names if n in have}}))"
    )
    versions = {"burnish": json.loads(subprocess.check_output([sys.executable, "-c", show]))}
    if given.peers.exists():
        versions["peers"] = json.loads(subprocess.check_output([str(given.peers), "-c", show]))
    commit = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": str(date.today()),
        "machine": report.machine(),
        "versions": versions,
        "commit": commit.stdout.strip(),
        "keys": given.set,
        "rounds": given.rounds,
    }


def tool(script: str, *words: str) -> str:
    """A step that needs torch, in a process of its own: this one stays small and starts the arms."""
    return subprocess.check_output([sys.executable, str(HERE / script), *words], text=True)


def parse_key(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
