"""What shared prefixes save on real rows, and what building packs costs.

    python benchmarks/prefixes.py DATA --batch 32 --max-tokens 8192

DATA is the folder with alpaca/, multi-turn/, tool-calling/, chat-templates/ and tokenizers/.

Tokens are GPT-2's; ChatML, and Qwen3's template where turns have reasoning (it drops that of earlier turns, so
that each turn is a sequence of its own). No model is run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from burnish.data.pack import Pack, pack_all
from burnish.data.survey import survey
from burnish.recipe.load import load_recipe
from burnish.training.session import encode_recipe
from burnish.training.stages import plan_of

Row = dict[str, Any]
RULES = [
    "Answer in the language of the question.",
    "Say so when you do not know.",
    "Give steps as a numbered list, one action a step, and name the tools that are needed before the first one.",
    "Never invent a source, a date or a figure; where a figure is asked for, give its unit.",
    "Keep to what was asked; if the question can be read in two ways, say which one you answer.",
    "Write code in one block, complete enough to be run, and say which version of the language it needs.",
    "Decline what would harm somebody, in one sentence and without a lecture, and offer what can be done instead.",
    "Take the reader for a grown person who is short of time: no praise of the question, no summary at the end.",
    "Medical and legal questions get general information and the advice to see a professional.",
    "Numbers under thirteen are written out, except with units; thousands are separated by commas.",
    "Quote at most one sentence of any text, and name its author.",
    "If a document is attached, answer from it first and say where in it the answer stands.",
    "Opening hours, fees and the names of colleagues change: send the reader to the notice board for them.",
    "Recommend a book only if you can say in one sentence what the reader will find in it.",
    "When a conversation is long, do not repeat what was settled earlier, but build on it.",
]
SYSTEM = "You are the assistant of a small public library. " + " ".join(RULES)


def alpaca(data: Path, system: str | None = None) -> Iterator[Row]:
    opening = [{"role": "system", "content": system}] if system else []
    for line in (data / "alpaca/alpaca_gpt4_en_1k.jsonl").read_text("utf-8").split("\n"):
        if line:
            row = json.loads(line)
            asked = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
            answer = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
            yield {"messages": opening + answer}


def oasst(data: Path) -> Iterator[Row]:
    """Every way from a prompt to a last answer of the assistant: answers to one prompt stand next to each other."""

    def walk(message: Row, before: list[Row]) -> Iterator[Row]:
        role = "user" if message["role"] == "prompter" else "assistant"
        here = [*before, {"role": role, "content": message["text"]}]
        below = [row for reply in message["replies"] for row in walk(reply, here)]
        if below:
            yield from below
        elif role == "assistant":
            yield {"messages": here}

    for line in (data / "multi-turn/oasst_en_100_trees.jsonl").read_text("utf-8").split("\n"):
        if line:
            yield from walk(json.loads(line)["prompt"], [])


def topical(data: Path, *, reasoning: bool) -> Iterator[Row]:
    """300 conversations of about 20 turns; the reasoning is made up: what was said last, turned over."""
    with gzip.open(data / "multi-turn/topical_chat.jsonl.gz", "rt", encoding="utf-8") as lines:
        for _, line in zip(range(300), lines, strict=False):
            messages = json.loads(line)["messages"]
            for last, message in pairwise(messages):
                if reasoning and message["role"] == "assistant":
                    message["reasoning_content"] = (
                        f"They say: {last['content']} I should take that up and keep it short."
                    )
            yield {"messages": [{k: m[k] for k in m if k != "rating"} for m in messages]}


def tool_use(data: Path) -> Iterator[Row]:
    for line in (data / "tool-calling/reason_tool_use_demo_50.jsonl").read_text("utf-8").split("\n"):
        if line:
            yield json.loads(line)


def measure(name: str, rows: Iterator[Row], template: Path, given: argparse.Namespace, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    keys = {
        "model": str(given.data / "tokenizers/gpt2"),
        "datasets": str(path),
        "chat_template": str(template),
        "global_batch_size": given.batch,
        "max_length": 4096,
        "num_epochs": 1,
    }
    recipe = load_recipe(None, keys).recipe
    _, prepared = encode_recipe(recipe)
    plan = plan_of(recipe, prepared.train)
    plain = partial(pack_all, max_tokens=given.max_tokens)
    shared = partial(pack_all, max_tokens=given.max_tokens, share_prefixes=True)
    told, apart = (survey(prepared.train, plan, lay_out, most=10**6) for lay_out in (shared, plain))
    seconds = []
    for lay_out in (plain, shared):
        steps = [[view for row in plan.rows_of(s) for view in prepared.train[row]] for s in range(told.steps)]
        began = time.process_time()
        packs: list[Pack] = [pack for examples in steps for pack in lay_out(examples)]
        seconds.append((time.process_time() - began) / told.rows * 1000)
    trees = sum(pack.is_tree for pack in packs)
    whole = partial(pack_all, max_tokens=10**9, share_prefixes=True)
    every = sum(map(len, whole([view for views in prepared.train for view in views])))
    print(
        f"{name:34} {told.rows:5,} {told.examples:6,} {told.tokens:10,} {told.graded_tokens / told.tokens:6.1%} "
        f"{told.laid:10,} {told.saved:6.1%} {1 - every / told.tokens:7.1%} {apart.packs:5,} "
        f"{told.packs:5,} {trees:5,} {seconds[0]:7.2f} {seconds[1]:7.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=4096)
    given = parser.parse_args()
    templates = given.data / "chat-templates/templates"
    chatml, qwen = templates / "axolotl__chatml.jinja", templates / "llamacpp__Qwen-Qwen3-0.6B.jinja"
    print(
        f"batches of {given.batch} rows, packs of at most {given.max_tokens:,} tokens; s: CPU seconds for 1,000 rows"
    )
    print(f"{'':34} {'rows':>5} {'seqs':>6} {'tokens':>10} {'graded':>6} {'laid':>10} {'saved':>6} {'all-in-1':>7} "
          f"{'packs':>5} {'tree':>5} {'trees':>5} {'s plain':>7} {'s tree':>7}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, rows, template in [
            ("alpaca gpt-4", alpaca(given.data), chatml),
            ("alpaca gpt-4, system prompt", alpaca(given.data, SYSTEM), chatml),
            ("oasst trees, every way", oasst(given.data), chatml),
            ("topical chat, ChatML", topical(given.data, reasoning=False), chatml),
            ("topical chat, reasoning, Qwen3", topical(given.data, reasoning=True), qwen),
            ("tool use with reasoning, Qwen3", tool_use(given.data), qwen),
        ]:
            measure(name, rows, template, given, Path(folder))


if __name__ == "__main__":
    main()
