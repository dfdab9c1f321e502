"""A reward model: a sequence-classification directory that gives an exchange one number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from burnish.curation.items import Item
from burnish.curation.prompts import Prompt
from burnish.curation.score import Values, exchange
from burnish.errors import DataError, UsageError
from burnish.evaluation.fingerprint import fingerprint
from burnish.models.generate import evaluating, num_positions
from burnish.models.load import default_device
from burnish.models.locate import locate
from burnish.models.tokenizer import ChatTokenizer, load_chat_tokenizer
from burnish.types import Message

BATCH = 16


class RewardModel:
    """Scores exchanges: the one logit where there is one, else the log-odds of the class `label`.

    With a chat template it reads the conversation as the template renders it; else prompt and answer as a pair.
    """

    values = ("reward",)

    def __init__(self, directory: str, *, label: str | None = None) -> None:
        self.name = f"reward:{fingerprint(directory)}"
        self._tokenizer: ChatTokenizer = load_chat_tokenizer(directory, chat=False)
        self._model = _load(directory)
        self._class = _class_of(self._model, directory, label)
        if self._tokenizer.tokenizer.pad_token_id is None:
            self._tokenizer.tokenizer.pad_token = self._tokenizer.tokenizer.eos_token
        if self._model.config.pad_token_id is None:  # it finds the last token of a row by it
            self._model.config.pad_token_id = self._tokenizer.tokenizer.pad_token_id

    def score(self, items: Sequence[Item]) -> list[Values | None]:
        """The reward of each row's last answer."""
        found = [exchange(item.row.content) for item in items]
        values = iter(self._rewards([pair for pair in found if pair is not None]))
        return [{"reward": None if pair is None else next(values)} for pair in found]

    def grade(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float | None]:
        """The reward of each answer: for choosing among samples."""
        return list(self._rewards([(prompt.messages, text) for prompt, text in pairs]))

    def _rewards(self, exchanges: Sequence[tuple[tuple[Message, ...], str]]) -> list[float]:
        rewards: dict[int, float] = {}
        ids = [self._ids(said, answer) for said, answer in exchanges]
        order = sorted(range(len(ids)), key=lambda k: len(ids[k]))
        filler = self._tokenizer.tokenizer.pad_token_id or 0
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            longest = max(len(ids[k]) for k in batch)
            tokens = torch.tensor([ids[k] + [filler] * (longest - len(ids[k])) for k in batch])
            mask = torch.tensor([[1] * len(ids[k]) + [0] * (longest - len(ids[k])) for k in batch])
            with evaluating(self._model):
                logits = self._model(
                    input_ids=tokens.to(self._model.device), attention_mask=mask.to(self._model.device)
                ).logits.float()
            rewards |= dict(zip(batch, self._one_number(logits).tolist(), strict=True))
        return [rewards[k] for k in range(len(ids))]

    def _one_number(self, logits: torch.Tensor) -> torch.Tensor:
        if self._class is None:
            return logits[:, 0]
        rest = [k for k in range(logits.shape[1]) if k != self._class]
        return logits[:, self._class] - logits[:, rest].logsumexp(-1)

    def _ids(self, said: tuple[Message, ...], answer: str) -> list[int]:
        """The exchange as ids, its beginning cut off where it is longer than the model: the answer stays."""
        tokenizer, template = self._tokenizer.tokenizer, self._tokenizer.template
        if template is not None:
            text = template.render([*said, {"role": "assistant", "content": answer}])
            ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        else:
            prompt = "\n\n".join(str(message["content"]) for message in said)
            ids = list(tokenizer(prompt, answer)["input_ids"])
        return ids[-(num_positions(self._model.config) or len(ids)) :]


def _load(name: str) -> PreTrainedModel:
    directory = locate(name)
    if not list(directory.glob("*.safetensors")):
        raise DataError(
            f"{directory}: no .safetensors file",
            rule="weights are read from safetensors only, for a pickle can run code",
            remedy="save the reward model with safetensors: model.save_pretrained(...)",
        )
    try:
        model: PreTrainedModel
        model, told = AutoModelForSequenceClassification.from_pretrained(
            directory, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"{directory}: {error}",
            rule="a reward model loads as AutoModelForSequenceClassification",
            remedy="give the directory of one",
        ) from error
    if told["missing_keys"]:
        missing = ", ".join(sorted(told["missing_keys"])[:3])
        raise DataError(
            f"{directory}: {missing} missing, and would be random",
            rule="a reward model has a trained head",
            remedy="give a directory that was saved as a sequence classification model",
        )
    return model.to(default_device())


def _class_of(model: PreTrainedModel, name: str, label: str | None) -> int | None:
    """Which of several classes is the good one; None where there is one logit."""
    names = {str(value): int(key) for key, value in model.config.id2label.items()}
    if model.config.num_labels == 1:
        return None
    if label is None or label not in names:
        raise UsageError(
            f"{name} has {len(names)} classes: {', '.join(names)}",
            rule="of several classes one is said to be the good one",
            remedy=f"say --label {next(reversed(names))}",
        )
    return names[label]
