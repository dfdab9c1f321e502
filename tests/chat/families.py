"""Small templates in the form of five families, and small tokenizers of both kinds, for the tests of chat.

The real templates and tokenizers are in ../shared; these make the core tests run without it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from burnish.chat.template import CHATML, ChatTemplate
from burnish.types import Content, Conversation, Origin, Row

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{{ '' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role'])"
    " + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ ' [INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{% set content = m['content'] %}"
    "{% if m['role'] == 'assistant' and not loop.last %}"
    "{% set content = content.split('</think>\n\n')[-1] %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Qwen3's habit: earlier reasoning is dropped from history."""

FAMILIES = {
    "ChatML": (CHATML, "", "<|im_end|>", ["<|im_start|>"]),
    "Llama-3": (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
    "Llama-2": (LLAMA_2, "<s>", "</s>", []),
    "Gemma": (GEMMA, "<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
    "Mistral": (MISTRAL, "<s>", "</s>", []),
}
"""name -> template, bos, eos, the family's other control tokens"""

TEXT = (
    "system user assistant model Hello there, how are you today? The cat sat on the mat.\n\n"
    "1 2 3 4 5 6 7 8 9 0 yes no [INST] [/INST] <|im_end|> </s> <think> é 😀\n"
)


def tokenizer_of(kind: str, bos: str, eos: str, others: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind (`bytes`, `pieces`, or a folder of ../shared), with a family's control tokens."""
    backend = Tokenizer.from_str(_backend(kind))
    names: dict[str, str] = {"eos_token": eos, **({"bos_token": bos} if bos else {})}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.backend_tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in [bos, eos, *others] if token]
    )
    return tokenizer


@cache
def _backend(kind: str) -> str:
    if kind == "bytes":
        return _trained_on_bytes().to_str()
    if kind == "pieces":
        return _trained_on_pieces().to_str()
    return str(AutoTokenizer.from_pretrained(SHARED / "tokenizers" / kind).backend_tokenizer.to_str())


def _trained_on_bytes() -> Tokenizer:
    """Byte-level BPE as in GPT-2, in which "assistant", "\\n" and what follows may be one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = (
        [TEXT] * 4
        + ["assistant\n\n"] * 20
        + ["assistant\n \n"] * 9
        + ["assistant\n."] * 9
        + ["model\n\n"] * 20
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def _trained_on_pieces() -> Tokenizer:
    """SentencePiece's way, as in Llama-2: a "▁" put first, bytes for what is unknown, a BOS put before."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    layout = json.loads(tokenizer.to_str())
    vocabulary = layout["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    layout["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(layout))


def family(name: str, kind: str = "bytes") -> tuple[ChatTemplate, PreTrainedTokenizerFast]:
    """A family's template and a tokenizer that knows its control tokens."""
    source, bos, eos, others = FAMILIES[name]
    template = ChatTemplate(source, special_tokens={"bos_token": bos, "eos_token": eos})
    return template, tokenizer_of(kind, bos, eos, others)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def row(content: Content) -> Row:
    return Row(0, 0, Origin("data.jsonl", 1), content)


def chat(*messages: dict[str, Any]) -> Row:
    return row(Conversation(list(messages)))
