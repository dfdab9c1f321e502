"""What all arms train: one model, the same rows, and the ids and masks that burnish makes of them, written once.

python benchmarks/workloads.py build/bench --shape s30 --sizes alpaca=48,shared_prompt=32

build/bench/s30/model/                   random weights from one seed, a real tokenizer, ChatML
build/bench/s30/model-thinking/          the same weights; a template that drops earlier reasoning
build/bench/s30/lora.safetensors         the adapter's first weights, as burnish draws them
build/bench/s30/alpaca/rows.jsonl        what burnish reads
build/bench/s30/alpaca/examples.json     the ids and masks that burnish feeds, for the peers
build/bench/s30/alpaca/facts.json        tokens, graded tokens, rows a step, the FLOPs nobody can leave out
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from arithmetic import necessary

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
BATCH = 8
"""Sequences in one optimiser step, for every arm."""

TURNS = 4
"""Questions in one conversation of the reasoning set: four sequences, for each turn drops the thought before it."""

MAX_LENGTH = 1024
SEED = 42

SHAPES = {
    "tiny": {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 128, "vocab": 32_768},
    "s30": {"hidden": 384, "layers": 8, "heads": 6, "kv_heads": 2, "intermediate": 1024, "vocab": 32_768},
    "135m": {"hidden": 576, "layers": 30, "heads": 9, "kv_heads": 3, "intermediate": 1536, "vocab": 49_152},
}

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

THINKING = (
    "{% set ns = namespace(last=0) %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and message.get('reasoning_content') and loop.index0 > ns.last %}"
    "{{ '<think>\n' + message['reasoning_content'] + '\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SYSTEM = """You are the support assistant of a small shop that sells and repairs bicycles by post. Answer in the \
language of the question. Be brief where a short answer is enough and thorough where a mistake could \
hurt somebody: brakes, forks and wheels are never guessed at. If the question is not about bicycles, \
answer it all the same, as well as you can, and do not steer the talk back to the shop. Never invent an \
order number, a price or a date of delivery; say that you cannot see the order and where it can be \
looked up. Units are metric, with inches in brackets where a part is sold by them. Lists have at most \
seven points, each a whole sentence. When you give steps, number them, name the tool that each step \
needs, and say how a person can tell that the step has worked. When two parts do not fit together, say \
so in the first sentence and offer one that fits. A return is free for thirty days; a repaired part has \
two years of warranty, a worn part none, and wear is chain, cassette, pads and tyres. If somebody is \
angry, say once that you understand, and then solve the matter. If somebody asks for a human, give the \
telephone hours, nine to five on working days, and nothing else. Code, poems, recipes and homework are \
welcome. Write plain text without emphasis marks, and end when the answer has ended."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="s30")
    parser.add_argument("--sizes", default="alpaca=48", help="workload=rows, separated by commas")
    given = parser.parse_args()
    folder = given.folder / given.shape
    folder.mkdir(parents=True, exist_ok=True)
    make_model(folder, given.shape)
    for entry in given.sizes.split(","):
        name, _, rows = entry.partition("=")
        write_workload(folder, name, int(rows), given.shape)
        write_adapter(folder, name)


def make_model(folder: Path, shape: str) -> None:
    """Save the model twice, the second time as links to the same weights with the other template."""
    import torch
    import transformers

    if (folder / "model-thinking" / "tokenizer.json").exists():
        return
    size = SHAPES[shape]
    tokenizer = load_tokenizer()
    config = transformers.LlamaConfig(
        hidden_size=size["hidden"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        intermediate_size=size["intermediate"],
        vocab_size=size["vocab"],
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    thinking = folder / "model-thinking"
    thinking.mkdir(exist_ok=True)
    for file in (folder / "model").iterdir():
        if file.is_file() and not (thinking / file.name).exists():
            (thinking / file.name).symlink_to(file.resolve())
    for name, template in (("model", CHATML), ("model-thinking", THINKING)):
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder / name)


def load_tokenizer() -> Any:
    """Llama 2's tokenizer with ChatML's two control tokens; marble's where ../shared is not there."""
    import transformers

    known = SHARED / "tokenizers" / "llama-2"
    if known.exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(known)
    else:
        from burnish import marble

        tokenizer = transformers.AutoTokenizer.from_pretrained(marble.DIRECTORY)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>"}
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def write_adapter(folder: Path, workload: str) -> None:
    """The first LoRA weights that burnish would draw, so that the peers start from the very same ones."""
    if (folder / "lora.safetensors").exists():
        return
    import torch
    from safetensors.torch import save_file

    from burnish.adapters.apply import apply_adapter
    from burnish.models.load import load_model

    recipe = recipe_of(folder, workload, method="lora")
    torch.manual_seed(recipe.seed)
    model = apply_adapter(load_model(recipe.model), recipe)
    drawn = {name: p.detach().float().contiguous() for name, p in model.named_parameters() if "lora_" in name}
    save_file(drawn, folder / "lora.safetensors")


def recipe_keys(
    folder: Path, workload: str, *, method: str = "full", dtype: str = "bfloat16"
) -> dict[str, Any]:
    """The recipe of one measured run: nothing evaluated, the file's order, a constant rate."""
    return {
        "model": str(folder / ("model-thinking" if workload == "reasoning" else "model")),
        "datasets": str(folder / workload / "rows.jsonl"),
        "adapter": method,
        "learning_rate": 1e-4,
        "lr_scheduler": "constant",
        "warmup_steps": 0,
        "global_batch_size": BATCH // TURNS if workload == "reasoning" else BATCH,
        "num_epochs": 1,
        "max_length": MAX_LENGTH,
        "shuffle": False,
        "dtype": dtype,
        "seed": SEED,
    }


def recipe_of(folder: Path, workload: str, *, method: str = "full") -> Any:
    from burnish.recipe.load import load_recipe

    return load_recipe(None, recipe_keys(folder, workload, method=method)).recipe


def write_workload(folder: Path, name: str, rows: int, shape: str) -> None:
    """Rows whose sequences all fit, encoded by burnish; in batches of eight sequences exactly."""
    from burnish.training.session import encode_recipe

    place = folder / name
    place.mkdir(exist_ok=True)
    write_lines(place / "rows.jsonl", islice(rows_of(name), 3 * rows))
    recipe = recipe_of(folder, name)
    _, data = encode_recipe(recipe)
    wanted = TURNS if name == "reasoning" else 1
    kept = [views for views in data.train if len(views) == wanted][:rows]
    lines = [data.origins[views[0].row].line for views in kept]
    written = (place / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    (place / "rows.jsonl").write_text("".join(written[line - 1] + "\n" for line in lines), encoding="utf-8")
    examples = [view for views in kept for view in views]
    ids = [list(view.input_ids) for view in examples]
    graded = [[int(weight != 0) for weight in view.weights] for view in examples]
    (place / "examples.json").write_text(json.dumps({"ids": ids, "graded": graded}))
    steps = [
        necessary(ids[i : i + BATCH], graded[i : i + BATCH], SHAPES[shape]) for i in range(0, len(ids), BATCH)
    ]
    facts = {
        "rows": len(kept),
        "sequences": len(ids),
        "steps": len(ids) // BATCH,
        "tokens": sum(map(len, ids)),
        "graded_tokens": sum(map(sum, graded)),
        "longest": max(map(len, ids)),
        "tokens_by_step": [step.tokens for step in steps],
        "distinct_tokens_by_step": [step.distinct_tokens for step in steps],
        "flops_full_by_step": [step.full for step in steps],
        "flops_lora_by_step": [step.lora for step in steps],
        "source": str(SHARED.name) if SHARED.exists() else "burnish's own demonstrations",
    }
    (place / "facts.json").write_text(json.dumps(facts))
    sys.stderr.write(
        f"{name}: {facts['sequences']} sequences, {facts['tokens']} tokens, {facts['steps']} steps\n"
    )


def write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    """The workload's conversations, without an end for practical purposes."""
    match name:
        case "shared_prompt":
            for row in alpaca():
                yield {"messages": [{"role": "system", "content": SYSTEM}, *row["messages"]]}
        case "reasoning":
            yield from reasoning()
        case _:
            yield from alpaca()


def alpaca() -> Iterator[dict[str, Any]]:
    """Alpaca prompts with GPT-4 answers, then Alpaca's own; burnish's demonstrations where there are neither."""
    files = [SHARED / "alpaca" / name for name in ("alpaca_gpt4_en_1k.jsonl", "alpaca.jsonl")]
    if not files[0].exists():
        from burnish.marble.demonstrations import demonstrations

        single = [row["messages"] for row in demonstrations(4000)]
        for index in range(0, len(single) - 13, 13):
            turns = 1 + (index * 7) % 13
            yield {"messages": [m for messages in single[index : index + turns] for m in messages]}
        return
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            asked = "\n".join(part for part in (row["instruction"], row["input"]) if part)
            if row["output"].strip():
                answer = {"role": "assistant", "content": row["output"].strip()}
                yield {"messages": [{"role": "user", "content": asked}, answer]}


def reasoning() -> Iterator[dict[str, Any]]:
    """Grade-school problems, four to a conversation: the worked solution is the thought, the number the answer."""
    file = SHARED / "gsm8k" / "train.jsonl"
    if file.exists():
        solved = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        pairs = [(row["question"], *row["answer"].rsplit("\n#### ", 1)) for row in solved]
    else:
        pairs = [
            (
                f"What is {a} plus {b}, times {c}?",
                f"{a} plus {b} is {a + b}. Times {c} that is {(a + b) * c}.",
                f"{(a + b) * c}",
            )
            for a, b, c in ((n % 97, n % 89, n % 13) for n in range(7000))
        ]
    for start in range(0, len(pairs) - TURNS, TURNS):
        messages: list[dict[str, str]] = []
        for question, thought, answer in pairs[start : start + TURNS]:
            messages.append({"role": "user", "content": question})
            messages.append(
                {"role": "assistant", "reasoning_content": thought, "content": f"The answer is {answer}."}
            )
        yield {"messages": messages}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
