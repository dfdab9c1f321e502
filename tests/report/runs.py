"""Run directories written by hand in the forms that burnish's parts write, for the tests of what draws them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson

WORDS = ["The", " capital", " of", " France", " is", " Paris", ".", "<|im_end|>"]
GROUPS = ["format", "content", "format", "content", "format", "content", "format", "stop"]
BASE = [0.21, 0.42, 0.88, 0.61, 0.79, 0.83, 0.34, 0.0004]
STEPS = (0, 20, 40, 60, 80, 100, 120)


def sure(step: int, start: float, end: float) -> float:
    return end + (start - end) * math.exp(-step / 25)


def looks(word: str = "") -> list[dict[str, Any]]:
    found = []
    for step in STEPS:
        p = [sure(step, base, 0.985) for base in BASE]
        groups = {}
        for name in ("all", "content", "format", "stop"):
            of = [k for k, group in enumerate(GROUPS) if name in ("all", group)]
            groups[name] = {
                "n": 40 * len(of),
                "mean_p": sum(p[k] for k in of) / len(of),
                "median_p": sorted(p[k] for k in of)[len(of) // 2],
                "base_mean_p": sum(BASE[k] for k in of) / len(of),
                "base_top1": {"all": 0.71, "content": 0.78, "format": 0.74, "stop": 0.0}[name],
                "base_top5": {"all": 0.83, "content": 0.9, "format": 0.93, "stop": 0.02}[name],
                "mean_rank_base": {"all": 14.2, "content": 3.1, "format": 2.4, "stop": 411.0}[name],
            }
        rows = [
            {
                "row": row,
                "prompt": f"What is the capital of France?{word}",
                "tokens": [each + word for each in WORDS],
                "p": p,
                "base_p": BASE,
                "base_rank": [2, 1, 1, 1, 1, 1, 3, 411],
                "group": GROUPS,
            }
            for row in (17, 42)
        ]
        found.append({"step": step, "tokens": 320, "groups": groups, "rows": rows})
    return found


def forgot(word: str = "") -> list[dict[str, Any]]:
    found = []
    for probe, far in (("general text" + word, 0.031), ("the base's own answers" + word, 0.012)):
        for step in STEPS:
            drift = far * (1 - math.exp(-step / 40))
            breached = drift > 0.02
            found.append(
                {
                    "step": step,
                    "probe": probe,
                    "loss": 2.31 + drift,
                    "base_loss": 2.31,
                    "drift": drift,
                    "low": drift - 0.004,
                    "high": drift + 0.004,
                    "budget": 0.02,
                    "breached": breached,
                    "task_loss": sure(step, 2.09, 0.02),
                    "act": "replay" if breached and step == 60 else None,
                    "detail": f"share raised to 0.2{word}" if breached else "",
                }
            )
    return found


def metric(value: float, half: float, n: int = 200, **more: Any) -> dict[str, Any]:
    interval = {"low": max(0.0, value - half), "high": value + half, "interval": "bootstrap"}
    return {"value": value, "n": n, "higher_is_better": True, **interval, **more}


def share(value: float, n: int = 200) -> dict[str, Any]:
    half = 1.96 * math.sqrt(value * (1 - value) / n + 0.002)
    return metric(value, half, n, interval="wilson", high=min(1.0, value + half))


def judged(word: str = "") -> dict[str, Any]:
    def of(model: str, right: float, loss: float, step: int | None) -> dict[str, Any]:
        return {
            "model": model,
            "path": f"runs/x/final{word}",
            "step": step,
            "date": "2026-11-20",
            "dataset": f"unseen entities{word}",
            "rows": 200,
            "metrics": {
                "exact_match": share(right),
                "stop_rate": share(min(1.0, right + 0.005)),
                "held_out_loss": metric(loss, 0.03, higher_is_better=False),
            },
            "by_source": {
                f"capitals{word}": {"exact_match": share(right, 120)},
                "symbols": {"exact_match": share(right, 80)},
            },
            "contamination": {"rows": 3 if step else 0, "of": 200, "ngram": 13},
            "samples": [
                {
                    "prompt": f"Who wrote Dracula?{word}",
                    "answer": f"Bram Stoker.{word}",
                    "expected": f"Bram Stoker.{word}",
                    "correct": right > 0.5,
                }
            ],
        }

    return {"version": 1, "evaluations": [of("base", 0.005, 2.09, None), of("tuned", 0.985, 0.02, 120)]}


def data_curve(word: str = "") -> dict[str, Any]:
    points = []
    for rule in ("epochs", "steps"):
        for rows in (10, 30, 100, 300, 1000, 3000):
            for seed in (0, 1, 2):
                value = 0.985 - (2.2 if rule == "epochs" else 1.4) * rows**-0.72 + 0.004 * seed
                value = max(0.05, min(1.0, value))
                points.append(
                    {
                        "rows": rows,
                        "seed": seed,
                        "rule": rule,
                        "value": value,
                        "low": max(0.0, value - 0.02),
                        "high": min(1.0, value + 0.015),
                        "by_source": {},
                    }
                )
    return {
        "version": 1,
        "recipe": f"recipes/assistant.yaml{word}",
        "metric": f"exact_match{word}",
        "rule": "epochs",
        "points": points,
        "fit": {
            "epochs": {"plateau": 0.985, "exponent": 0.72, "scale": 2.2, "interval": [0.97, 0.99]},
            "steps": {"plateau": 0.985, "exponent": 0.72, "scale": 1.4, "interval": [0.97, 0.99]},
        },
        "advice": [f"Quality reaches 95% of its plateau at 300 rows.{word}", f"Stop collecting.{word}"],
    }


def shots(word: str = "") -> dict[str, Any]:
    def arm(name: str, k: int, value: float, tokens: int) -> dict[str, Any]:
        found = share(value)
        return {
            "name": name + word,
            "k": k,
            "value": value,
            "low": found["low"],
            "high": found["high"],
            "n": 200,
            "tokens_per_request": tokens,
        }

    return {
        "version": 1,
        "arms": [
            arm("zero-shot", 0, 0.01, 12),
            arm("4-shot fixed", 4, 0.52, 131),
            arm("4-shot retrieved", 4, 0.71, 139),
            arm("tuned", 0, 0.985, 19),
        ],
        "pays_after_requests": 41_000,
        "advice": [f"Tuning is better than 8 examples in the prompt, at a seventh of the tokens.{word}"],
    }


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


def write_evidence(run: Path, word: str = "") -> None:
    """The files of evaluation, sharpening and forgetting, beside those that training wrote."""
    write_lines(run / "sharpening.jsonl", looks(word))
    write_lines(run / "forgetting.jsonl", forgot(word))
    for name, value in (
        ("evals.json", judged(word)),
        ("curve.json", data_curve(word)),
        ("fewshot.json", shots(word)),
    ):
        (run / name).write_bytes(orjson.dumps(value))


RECIPE = {
    "model": "marble",
    "datasets": [{"path": "nowhere.jsonl", "name": None}],
    "learning_rate": 0.0005,
    "adapter": "full",
    "global_batch_size": 16,
    "max_steps": 120,
    "run_name": "x",
}


def make_run(path: Path, word: str = "", *, recipe: dict[str, Any] | None = None) -> Path:
    """A finished run with every file that a run may have; `word` is in each text."""
    path.mkdir(parents=True)
    asked = {**RECIPE, "model": f"marble{word}", **(recipe or {})}
    said = "".join(f"{key}: {orjson.dumps(value).decode()}  # train.yaml:1\n" for key, value in asked.items())
    (path / "resolved.yaml").write_text(said, encoding="utf-8")
    write_lines(path / "metrics.jsonl", [*updates(), *held_out()])
    write_lines(
        path / "ledger.jsonl",
        [
            {
                "row": row,
                "file": f"a.jsonl{word}",
                "line": row,
                "action": "dropped",
                "reason": f"duplicate{word}",
            }
            | {"graded_tokens_lost": None, "detail": f"same content{word}"}
            for row in (7, 9)
        ],
    )
    write_lines(path / "samples.jsonl", answers(word))
    spikes = [{"event": "warned", "step": step, "why": f"loss spike: 0.02{word}"} for step in (50, 70)]
    write_lines(path / "events.jsonl", spikes)
    for name, value in described(word).items():
        (path / name).write_bytes(orjson.dumps(value))
    write_evidence(path, word)
    for name in ("curve.json", "fewshot.json"):  # these lie in the folders of their own verbs
        (path / name).unlink()
    return path


def updates() -> list[dict[str, Any]]:
    return [
        {
            "kind": "train",
            "step": step,
            "num_steps": 120,
            "epoch": step / 30,
            "loss": sure(step, 2.1, 0.003),
            "learning_rate": 5e-4 * (1 - step / 121),
            "grad_norm": 6 / step,
            "graded_tokens": 160,
            "tokens": 480,
            "seconds": 0.1 + 0.001 * (step % 7),
            "memory_bytes": 690_000_000 + 10_000 * step,
            "source_loss": {"0": sure(step, 2.1, 0.003), "1": sure(step, 2.0, 0.005)},
            "source_tokens": {"0": 120, "1": 40},
        }
        for step in range(1, 121)
    ]


def held_out() -> list[dict[str, Any]]:
    return [
        {
            "kind": "eval",
            "step": step,
            "loss": sure(step, 2.09, 0.014),
            "accuracy": 1 - sure(step, 0.38, 0.004),
            "graded_tokens": 408,
            "best": True,
            "source_loss": {"0": sure(step, 2.1, 0.016), "1": sure(step, 2.07, 0.006)},
        }
        for step in STEPS
    ]


def answers(word: str) -> list[dict[str, Any]]:
    asked = (f"What is the capital of France?{word}", [{"role": "user", "content": f"And of Spain?{word}"}])
    return [
        {
            "step": step,
            "prompt": prompt,
            "text": f"\nThe word{word} for a zebra" if step == 0 else f"The capital is Paris.{word}",
            "finish_reason": "length" if step == 0 else "stop",
        }
        for step in STEPS
        for prompt in asked
    ]


def described(word: str) -> dict[str, Any]:
    source = {"source": 0, "name": f"capitals{word}", "stage": "", "rows": 270, "times": 5.3, "asked": 0.75}
    source |= {"share_of_rows": 0.75, "share_of_graded_tokens": 0.7544}
    parts = {"weights": 8e6, "masters": 15e6, "gradients": 15e6, "optimizer": 30e6, "activations": 60e6}
    return {
        "environment.json": {"date": "2026-11-20", "device": "cpu", "threads": 1, "platform": f"Linux{word}"},
        "plan.json": {
            "steps": 120,
            "sources": [source, {**source, "source": 1, "name": f"all{word}"}],
            "held_out_sources": {"0": f"capitals{word}", "1": f"all{word}"},
            "rows": 460,
            "held_out_rows": 40,
            "tokens_per_epoch": 15_000,
            "graded_tokens_per_epoch": 5_200,
            "trainable_parameters": 3_803_904,
            "parameters": 3_803_904,
            "chat_template": f"ChatML{word}",
        },
        "certificate.json": {
            "ok": True,
            "key": f"1fe2b83f4956d91b{word}",
            "parts": {"datasets": []},
            "rows": 502,
            "kept": 500,
            "views": 500,
            "violations": {},
            "refused": {f"duplicate{word}": 2},
            "stop_tokens": [f"<|im_end|>{word}"],
            "formats": [f"a.jsonl{word}: messages"],
        },
        "summary.json": {
            "steps": 120,
            "graded_tokens": 20_709,
            "rows": {"read": 502, "used": 500, "dropped": {f"duplicate{word}": 2}},
            "stopped_by": "finished",
            "reckoning": {
                "memory": {"expected": 700e6, "measured": 692e6, "parts": {**parts, "process": 559e6}},
                "seconds": {"expected": 12.8, "measured": 12.2, "after_step": 3},
            },
        },
    }
