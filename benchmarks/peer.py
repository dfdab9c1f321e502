"""One run of a peer in a process of its own: TRL's SFTTrainer or transformers' Trainer, on ids that burnish encoded.

    benchmarks/.venv-peers/bin/python benchmarks/peer.py settings.json

It writes RUN/events.jsonl and RUN/metrics.jsonl in burnish's form, so that one watcher reads them all. The settings
are those of `arms.py`; what is not named there is the peer's own default.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SETTINGS = json.loads(Path(sys.argv[1]).read_text())

if SETTINGS.get("allocator") == "kept":  # before torch is imported, as burnish does it
    import ctypes

    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 2**31 - 1)
    libc.mallopt(-1, 2**31 - 1)

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorWithFlattening,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

BATCH = 8


def main() -> None:
    run = Path(SETTINGS["run"])
    run.mkdir(parents=True, exist_ok=True)
    losses: list[float] = []
    trainer = (trl_trainer if SETTINGS["trainer"] == "trl" else plain_trainer)(rows())
    same_adapter(trainer.model)
    count_losses(trainer, losses)
    trainer.add_callback(Watch(run, losses))
    trainer.train()
    trainer.save_model(str(run / "final"))


def rows() -> Dataset:
    """Ids and labels in burnish's order; within a global batch sorted by length where micro-batches are to be even."""
    written = json.loads(Path(SETTINGS["examples"]).read_text())
    examples = [
        {"input_ids": ids, "labels": [i if kept else -100 for i, kept in zip(ids, graded, strict=True)]}
        for ids, graded in zip(written["ids"], written["graded"], strict=True)
    ]
    if SETTINGS.get("sorted"):
        batches = [examples[i : i + BATCH] for i in range(0, len(examples), BATCH)]
        examples = [e for batch in batches for e in sorted(batch, key=lambda e: -len(e["input_ids"]))]
    return Dataset.from_list(examples)


def arguments() -> dict[str, Any]:
    """What the runs need to be the same optimisation, then the settings under test."""
    needed = {
        "output_dir": str(Path(SETTINGS["run"]) / "out"),
        "max_steps": SETTINGS["steps"],
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
    }
    if SETTINGS.get("defaults"):
        return needed
    return needed | {
        "bf16": SETTINGS["dtype"] == "bfloat16",
        "per_device_train_batch_size": SETTINGS["micro"],
        "gradient_accumulation_steps": BATCH // SETTINGS["micro"],
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "logging_steps": 10,
    }


def lora() -> LoraConfig | None:
    if SETTINGS["method"] != "lora":
        return None
    return LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def trl_trainer(dataset: Dataset) -> Trainer:
    from trl import SFTConfig, SFTTrainer

    own: dict[str, Any] = {}
    if not SETTINGS.get("defaults"):
        own = {
            "padding_free": SETTINGS["flat"],
            "max_length": None,
            "model_init_kwargs": {"dtype": SETTINGS["base_dtype"]},
        }
    return SFTTrainer(
        model=SETTINGS["model"],
        args=SFTConfig(**arguments(), **own),
        train_dataset=dataset,
        peft_config=lora(),
    )


def plain_trainer(dataset: Dataset) -> Trainer:
    model = AutoModelForCausalLM.from_pretrained(
        SETTINGS["model"], dtype=getattr(torch, SETTINGS["base_dtype"])
    )
    config = lora()
    if config is not None:
        model = get_peft_model(model, config)
    pad = AutoTokenizer.from_pretrained(SETTINGS["model"]).pad_token_id
    collator = DataCollatorWithFlattening() if SETTINGS["flat"] else lambda batch: padded(batch, pad)
    return Trainer(
        model=model, args=TrainingArguments(**arguments()), train_dataset=dataset, data_collator=collator
    )


def padded(batch: list[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in batch)
    short = [longest - len(row["input_ids"]) for row in batch]
    return {
        "input_ids": torch.tensor(
            [row["input_ids"] + [pad] * n for row, n in zip(batch, short, strict=True)]
        ),
        "labels": torch.tensor([row["labels"] + [-100] * n for row, n in zip(batch, short, strict=True)]),
        "attention_mask": torch.tensor([[1] * (longest - n) + [0] * n for n in short]),
    }


def same_adapter(model: torch.nn.Module) -> None:
    """Start from the adapter that burnish starts from, so that the curves can be compared number by number."""
    if SETTINGS["method"] != "lora":
        return
    from safetensors.torch import load_file

    drawn = load_file(SETTINGS["adapter"])
    parameters = dict(model.named_parameters())
    if {name for name in parameters if "lora_" in name} != set(drawn):
        raise SystemExit("the adapters of burnish and of the peer have different names")
    with torch.no_grad():
        for name, value in drawn.items():
            parameters[name].copy_(value)


def count_losses(trainer: Trainer, losses: list[float]) -> None:
    """Note every micro-batch's share of the loss; the trainer logs a mean over many steps only."""
    step = trainer.training_step

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        loss = step(*args, **kwargs)
        losses.append(float(loss))
        return loss

    trainer.training_step = counted


class Watch(TrainerCallback):
    """Writes a line when training begins and one after each optimiser step."""

    def __init__(self, run: Path, losses: list[float]) -> None:
        self.run, self.losses = run, losses

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.append("events.jsonl", {"event": "ready"})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.append("metrics.jsonl", {"kind": "train", "step": state.global_step, "loss": sum(self.losses)})
        self.losses.clear()

    def append(self, name: str, value: dict[str, Any]) -> None:
        with (self.run / name).open("a") as file:
            file.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
