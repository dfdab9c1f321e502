"""Two source trees side by side on the s30 shape: each in its own process, fed the same updates in turn.

    python benchmarks/ab.py /work/main . --adapter lora --rounds 5
    python benchmarks/ab.py . . --env "|BURNISH_FLAT=off"

Alpaca rows with GPT-4 answers, Llama-2's tokenizer, batch 8, bf16 over fp32 masters. Prints the seconds of each round,
medians, tokens a second, peak RSS and the losses, which must agree. `padded:PATH` is benchmarks/step.py's padded loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = Path("/work/shared/data")
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '### User:\n' + m.content + '\n### Assistant:\n' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)

CHILD = r"""
import json, sys, time
sys.path.insert(0, sys.argv[1])
folder, adapter, updates = sys.argv[2], sys.argv[3], int(sys.argv[4])
padded, extra = sys.argv[5] == "1", json.loads(sys.argv[6])
from burnish.parallel.runtime import peak_memory_bytes, prepare_process
prepare_process()
import torch, torch.nn.functional as F
from burnish.recipe.load import load_recipe
from burnish.training.run import prepare
from burnish.training.step import take_step
keys = {"model": folder, "datasets": folder + "/rows.jsonl", "chat_template": folder + "/chat.jinja",
        "global_batch_size": 8,
        "learning_rate": 1e-4 if adapter == "full" else 2e-4, "max_steps": 100000, "adapter": adapter,
        "lora_r": 16, "max_length": 1024, "run_name": "ab", "lr_scheduler": "constant",
        "warmup_steps": 0, "warmup_ratio": None, **extra}
session = prepare(load_recipe(None, keys).recipe)
optimizer = torch.optim.AdamW(session.masters.parameters.values(), lr=1e-4, fused=True)

def pad(step):
    views = [v for row in session.plan.rows_of(step) for v in session.data.train[row]]
    longest = max(map(len, views))
    ids = torch.tensor([list(v.input_ids) + [0] * (longest - len(v)) for v in views])
    mask = torch.tensor([[1] * len(v) + [0] * (longest - len(v)) for v in views])
    w = torch.tensor([list(v.weights) + [0.0] * (longest - len(v)) for v in views])
    logits = session.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    loss = nll @ w[:, 1:].flatten() / w.sum()
    loss.backward()
    session.masters.clip(1.0)
    optimizer.step()
    session.masters.refresh()
    session.masters.zero_grad()
    return float(loss), sum(map(len, views))

print("ready", flush=True)
at = 0
for line in sys.stdin:
    started = time.perf_counter()
    cpu = time.process_time()
    losses, tokens = [], 0
    for _ in range(updates):
        if padded:
            loss, n = pad(at)
        else:
            session.state.step = at
            done = take_step(session)
            loss, n = done.loss, done.tokens
        losses.append(loss); tokens += n; at += 1
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu, "losses": losses,
                      "tokens": tokens, "rss": peak_memory_bytes() >> 20}), flush=True)
"""


def make(folder: Path, rows: int) -> None:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "llama-2")
    config = transformers.LlamaConfig(
        hidden_size=384,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=1024,
        vocab_size=32_768,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat.jinja").write_text(TEMPLATE)
    lines = (SHARED / "alpaca" / "alpaca_gpt4_en_1k.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
    records = [json.loads(line) for line in lines]
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        for r in records:
            asked = r["instruction"] + ("\n" + r["input"] if r["input"] else "")
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": r["output"]}]
            out.write(json.dumps({"messages": messages}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arms", nargs="+")
    parser.add_argument("--adapter", default="full")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--env", default="", help="A=1,B=2|C=3: environment of each arm")
    parser.add_argument("--recipe", default="{}|{}", help="JSON of recipe keys for each arm, split by |")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), given.rows)
        environments, recipes, children = given.env.split("|"), given.recipe.split("|"), []
        for index, arm in enumerate(given.arms):
            padded, path = arm.startswith("padded:"), Path(arm.removeprefix("padded:")).resolve()
            env = {**os.environ}
            if index < len(environments) and environments[index]:
                env.update(pair.split("=", 1) for pair in environments[index].split(","))
            extra = recipes[index] if index < len(recipes) else "{}"
            command = [
                sys.executable,
                "-c",
                CHILD,
                str(path / "src"),
                name,
                given.adapter,
                str(given.updates),
            ]
            children.append(
                subprocess.Popen(
                    [*command, "1" if padded else "0", extra],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=env,
                )
            )
            assert children[-1].stdout is not None and children[-1].stdout.readline() == "ready\n"
        told: list[list[dict[str, object]]] = [[] for _ in children]
        for number in range(given.rounds + 1):
            for index, child in enumerate(children):
                assert child.stdin is not None and child.stdout is not None
                child.stdin.write("go\n")
                child.stdin.flush()
                told[index].append(json.loads(child.stdout.readline()))
            rates = [f"{t[-1]['tokens'] / t[-1]['seconds']:7.0f}" for t in told]  # type: ignore[operator]
            sys.stderr.write(f"round {number}: {' '.join(rates)} tok/s\n")
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
            child.wait()
    for index, (arm, answers) in enumerate(zip(given.arms, told, strict=True)):
        rate = statistics.median(a["tokens"] / a["seconds"] for a in answers[1:])  # type: ignore[operator]
        cpu = statistics.median(a["tokens"] / a["cpu"] for a in answers[1:])  # type: ignore[operator]
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(answers[1:], told[0][1:], strict=True)]  # type: ignore[operator]
        drift = max(
            abs(x - y)
            for a, b in zip(answers, told[0], strict=True)
            for x, y in zip(a["losses"], b["losses"], strict=True)  # type: ignore[call-overload]
        )
        print(
            f"{index} {arm:28} {rate:7.0f} tok/s  {cpu:7.0f} tok/cpu-s  x{statistics.median(ratios):.3f} of arm 0  "
            f"RSS {answers[-1]['rss']} MB  max loss difference {drift:.1e}"
        )


if __name__ == "__main__":
    main()
