"""Tokens per second of serving, without HTTP: transformers alone, this engine with one client and with many.

python benchmarks/serve.py [--model marble] [--dtype float32] [--slots 8] [--continuous]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from transformers import GenerationConfig

from burnish.models.generate import generate
from burnish.serving.compute import Computer
from burnish.serving.engine import Ask, Engine, Piece
from burnish.serving.roster import load_roster
from burnish.serving.sampling import Sampling

PROMPTS = [
    f"{start} {number}"
    for number in range(1, 9)
    for start in ("The capital of France is", "Gold is a metal", "In the year", "Water freezes at")
]


def timed(name: str, work: Callable[[], list[int]]) -> None:
    began = time.perf_counter()
    num_tokens = sum(work())
    seconds = time.perf_counter() - began
    print(f"| {name} | {num_tokens} | {seconds:.2f} | {num_tokens / seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="marble")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--continuous", action="store_true", help="transformers' continuous batching, too")
    options = parser.parse_args()
    roster = load_roster([options.model], dtype=options.dtype)
    served = next(iter(roster.by_id.values()))
    prompts = [served.tokenizer.prompt_ids(prompt) for prompt in PROMPTS]
    stops = sorted(served.stop_ids)
    print(f"{roster.inner.dtype}, {len(prompts)} prompts, {options.slots} slots")
    print("| | tokens | s | tokens/s |\n|---|---|---|---|")

    def alone() -> list[int]:
        limit = options.max_tokens
        answers = [generate(roster.model, [p], stop_ids=stops, max_new_tokens=limit)[0] for p in prompts]
        return [len(answer.completion_ids) for answer in answers]

    timed("transformers, one at a time", alone)
    if options.continuous:
        config: Any = GenerationConfig(
            max_new_tokens=options.max_tokens, do_sample=False, eos_token_id=stops, pad_token_id=0
        )
        timed(
            "transformers, continuous batching",
            lambda: [
                len(answer.generated_tokens)
                for answer in roster.inner.generate_batch(inputs=prompts, generation_config=config).values()
            ],
        )
    with Computer(roster, width=options.slots) as computer, Engine(computer) as engine:

        async def one(ids: list[int]) -> int:
            ticket = engine.submit(
                [Ask(served, ids, options.max_tokens, Sampling(temperature=0.0), num_top=0)]
            )
            return sum([len(event.tokens) async for event in ticket.events() if isinstance(event, Piece)])

        async def in_turn() -> list[int]:
            return [await one(ids) for ids in prompts]

        async def together() -> list[int]:
            return list(await asyncio.gather(*(one(ids) for ids in prompts)))

        timed("this engine, one client", lambda: asyncio.run(in_turn()))
        timed(f"this engine, {len(prompts)} clients", lambda: asyncio.run(together()))


if __name__ == "__main__":
    main()
