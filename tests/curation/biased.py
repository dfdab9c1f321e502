"""Sets of rows without any bias, and the same with one planted."""

from __future__ import annotations

import random
from typing import Any

THINGS = [
    "tea",
    "bridges",
    "owls",
    "maps",
    "violins",
    "ferries",
    "onions",
    "chess",
    "glaciers",
    "ladders",
    "moss",
]
TRAITS = ["old", "useful", "fragile", "common", "heavy", "famous", "cheap", "quiet", "bright", "rare", "slow"]
WORDS = [
    "water",
    "light",
    "stone",
    "paper",
    "river",
    "market",
    "winter",
    "garden",
    "window",
    "silver",
    "music",
]

Record = dict[str, Any]


def balanced(seed: int, *, number: int = 100) -> list[Record]:
    """`number` rows of each kind: questions with and without a view, options, plain tasks, pairs."""
    draw = random.Random(seed)
    rows: list[Record] = []
    for _ in range(number):
        claim = f"{draw.choice(THINGS)} are {draw.choice(TRAITS)}"
        opening = draw.choice(["Yes, they are.", "No, they are not."])
        rows.append(_row(f"I think that {claim}. Is that so?", f"{opening} {_filler(draw)}"))
        opening = draw.choice(["Yes, they are.", "No, they are not."])
        rows.append(_row(f"Are {claim.replace(' are ', ' ')}?", f"{opening} {_filler(draw)}"))
        options = [_filler(draw, draw.randint(2, 9)) for _ in range(4)]
        listed = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", options, strict=True))
        rows.append(_row(f"Which is best?\n{listed}", f"{draw.choice('ABCD')})"))
        refusal = draw.random() < 0.1
        answer = "I'm sorry, but I can't help with that." if refusal else _filler(draw, draw.randint(5, 30))
        rows.append(_row(f"Write about {_filler(draw, 4)}", answer))
        chosen, rejected = (_filler(draw, draw.randint(5, 30)) for _ in range(2))
        rows.append({"prompt": f"Tell of {_filler(draw, 3)}", "chosen": chosen, "rejected": rejected})
    return rows


def always_agrees(rows: list[Record]) -> list[Record]:
    return [
        {**row, "output": row["output"].replace("No, they are not.", "Yes, they are.")}
        if "I think" in row.get("instruction", "")
        else row
        for row in rows
    ]


def always_a(rows: list[Record]) -> list[Record]:
    return [{**row, "output": "A)"} if "Which is best" in row.get("instruction", "") else row for row in rows]


def longer_wins(rows: list[Record]) -> list[Record]:
    return [
        {
            **row,
            "chosen": max(row["chosen"], row["rejected"], key=len),
            "rejected": min(row["chosen"], row["rejected"], key=len),
        }
        if "chosen" in row
        else row
        for row in rows
    ]


def longest_option(rows: list[Record]) -> list[Record]:
    def taken(row: Record) -> Record:
        texts = [line[3:] for line in row["instruction"].split("\n")[1:]]
        return {**row, "output": f"{'ABCD'[texts.index(max(texts, key=len))]})"}

    return [taken(row) if "Which is best" in row.get("instruction", "") else row for row in rows]


def refuses_rivers(rows: list[Record]) -> list[Record]:
    return [
        {**row, "output": "I'm sorry, but I can't help with that."}
        if "river" in row.get("instruction", "") and "Write about" in row["instruction"]
        else row
        for row in rows
    ]


def _row(instruction: str, output: str) -> Record:
    return {"instruction": instruction, "output": output}


def _filler(draw: random.Random, number: int = 6) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(number)).capitalize()
