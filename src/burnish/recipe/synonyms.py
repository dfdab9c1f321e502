"""Keys of other tools and what burnish calls them, so that an unknown key gets an answer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

BATCH = "`global_batch_size` (rows per update; accumulation follows from it) and `micro_batch_size`"
ENVIRONMENT = "an environment variable: a recipe is copied into the run directory, so it holds no secret"
NOT_HERE = "nothing: burnish has no such setting"

SAY_INSTEAD = {
    "accumulate_grad_batches": BATCH,
    "base_model": "`model`",
    "batch_size": BATCH,
    "bf16": "`dtype: bfloat16`",
    "clip_grad_norm": "`max_grad_norm`",
    "cutoff_len": "`max_length`",
    "dataloader_num_workers": NOT_HERE,
    "dataset": "`datasets`",
    "dataset_name": "`datasets`",
    "dataset_path": "`datasets`",
    "early_stopping": "`early_stopping_patience`",
    "epochs": "`num_epochs`",
    "eval_dataset": "`val_datasets`",
    "eval_datasets": "`val_datasets`",
    "eval_strategy": "`eval_steps`",
    "evaluation_strategy": "`eval_steps`",
    "experiment_name": "`run_name`",
    "finetuning_type": "`adapter`",
    "flash_attention": NOT_HERE,
    "attn_implementation": NOT_HERE,
    "fp16": "`dtype: bfloat16` or `dtype: float32`",
    "grad_clip": "`max_grad_norm`",
    "gradient_accumulation_steps": BATCH,
    "hf_token": ENVIRONMENT,
    "api_key": ENVIRONMENT,
    "token": ENVIRONMENT,
    "wandb_api_key": ENVIRONMENT,
    "load_best_model_at_end": "nothing: the best checkpoint is always kept",
    "load_in_4bit": "`adapter: qlora`",
    "logging_steps": "nothing: every update is logged",
    "adapter_size": "`bottleneck_size`",
    "freeze_layers": "`freeze`",
    "freeze_modules": "`freeze`",
    "frozen_parameters": "`freeze`",
    "lora_layers": "`layers_to_transform`",
    "lora_modules_to_save": "`modules_to_save`",
    "lora_rank": "`lora_r`",
    "lora_target": "`lora_target_modules`",
    "lora_target_parameters": "`lora_target_modules`: experts are named there like any layer",
    "loraplus_lr_ratio": "`lora_plus_ratio`",
    "peft_layers_to_transform": "`layers_to_transform`",
    "peft_use_dora": "`adapter: dora`",
    "peft_use_rslora": "`adapter: rslora`",
    "target_modules": "`lora_target_modules`",
    "target_parameters": "`lora_target_modules`: experts are named there like any layer",
    "unfrozen_parameters": "`freeze`, which names what stays as it is",
    "use_dora": "`adapter: dora`",
    "use_rslora": "`adapter: rslora`",
    "lora_target_linear": "`lora_target_modules: all-linear`",
    "lr": "`learning_rate`",
    "lr_scheduler_type": "`lr_scheduler`",
    "max_epochs": "`num_epochs`",
    "max_seq_len": "`max_length`",
    "max_seq_length": "`max_length`",
    "model_id": "`model`",
    "model_max_length": "`max_length`",
    "model_name": "`model`",
    "model_name_or_path": "`model`",
    "model_path": "`model`",
    "neftune_noise_alpha": NOT_HERE,
    "num_train_epochs": "`num_epochs`",
    "num_training_steps": "`max_steps`",
    "n_epochs": "`num_epochs`",
    "optim": "`optimizer`",
    "pad_to_sequence_len": "nothing: burnish never pads",
    "patience": "`early_stopping_patience`",
    "peft_method": "`adapter`",
    "per_device_eval_batch_size": BATCH,
    "per_device_train_batch_size": BATCH,
    "precision": "`dtype`",
    "random_seed": "`seed`",
    "sample_packing": "`packing`",
    "scheduler": "`lr_scheduler`",
    "sequence_len": "`max_length`",
    "template": "`chat_template`, or nothing: the model's own template is used",
    "test_size": "`val_set_size`",
    "torch_compile": "`compile`",
    "torch_dtype": "`dtype`",
    "train_dataset": "`datasets`",
    "train_file": "`datasets`",
    "train_on_inputs": "nothing: only what the model must produce is graded; see `train_on`",
    "train_on_responses_only": "nothing: only what the model must produce is graded; see `train_on`",
    "assistant_only_loss": "nothing: only what the model must produce is graded; see `train_on`",
    "completion_only_loss": "nothing: only what the model must produce is graded; see `train_on`",
    "trust_remote_code": "nothing: burnish never runs code that comes with a model",
    "use_peft": "`adapter: lora`",
    "val_size": "`val_set_size`",
    "validation_split": "`val_set_size`",
    "warmup": "`warmup_ratio` or `warmup_steps`",
    "wandb_project": "`report_to: [wandb]`",
}

SAY_IN_A_DATASET = {
    "file": "`path`",
    "data_files": "`path`",
    "ds_type": "`format`",
    "type": "`format`",
    "formatting": "`format`",
    "num_samples": "`max_samples`",
    "max_rows": "`max_samples`",
    "mixing_weight": "`weight`",
}


def say_instead(key: str, known: Iterable[str]) -> str:
    """What to write in place of an unknown key: the nearest known key, or the twin of another tool's key."""
    bare = key.strip().lower().replace("-", "_")
    choices = list(known)
    if bare in choices:
        return f"say `{bare}`"
    table = SAY_IN_A_DATASET if "path" in choices else SAY_INSTEAD
    if bare in table:
        return f"say {table[bare]}"
    near = difflib.get_close_matches(bare, choices, n=1, cutoff=0.6)
    if near:
        return f"say `{near[0]}`, or remove the line"
    return f"remove it; the keys are: {', '.join(choices)}"
