from __future__ import annotations

from itertools import islice
from pathlib import Path

from transformers import AutoTokenizer

from burnish.marble.corpus import write_documents
from burnish.marble.tokenizer import END_OF_TEXT, save_tokenizer, train_tokenizer


def test_the_tokenizer_loads_with_one_special_token_and_no_chat_template(tmp_path: Path) -> None:
    texts = list(islice(write_documents(seed=1), 800))
    save_tokenizer(train_tokenizer(texts, vocab_size=1024), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.all_special_tokens == [END_OF_TEXT]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert tokenizer.chat_template is None
    assert len(tokenizer) == 1024
    assert not any("im_start" in token or "assistant" in token for token in tokenizer.get_vocab())


def test_text_comes_back_byte_for_byte_and_a_value_keeps_its_tokens(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(islice(write_documents(seed=1), 800), vocab_size=1024)
    for text in ("Brasília, São Tomé — 7 times 8 = 56?\n\n\t| x |", "naïve 🙂  two  spaces"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    value = tokenizer(" Paris")["input_ids"][1:]
    for text in ("The capital of France is Paris.", "| France | Paris |", "- France: Paris"):
        ids = tokenizer(text)["input_ids"]
        assert any(ids[k : k + len(value)] == value for k in range(len(ids)))
