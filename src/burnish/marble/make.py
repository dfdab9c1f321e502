"""How marble is made, from its tables of facts to the weights in the package.

    python -m burnish.marble.make corpus build/marble     writes corpus.jsonl, and blank/: a config and a tokenizer
    burnish pretrain recipes/marble.yaml                  trains it from random weights
    python -m burnish.marble.make install RUN             puts the finished weights, in bf16, into the package

`make marble` does all three.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import orjson
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from burnish.marble import DIRECTORY
from burnish.marble.corpus import write_corpus
from burnish.marble.tokenizer import save_tokenizer, train_tokenizer

CORPUS_TOKENS = 7_400_000
TOKENIZER_DOCUMENTS = 20_000
SEED = 0

SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def write_ingredients(folder: Path, *, num_tokens: int = CORPUS_TOKENS) -> None:
    """Write the corpus, and a model directory that has everything but weights."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.jsonl"
    write_corpus(corpus, num_tokens=num_tokens, seed=SEED)
    tokenizer = train_tokenizer(islice(_texts(corpus), TOKENIZER_DOCUMENTS))
    blank = folder / "blank"
    save_tokenizer(tokenizer, blank)
    end = tokenizer.eos_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, pad_token_id=None, **SHAPE
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(blank)


def install(run: Path, directory: Path = DIRECTORY) -> None:
    """Copy a run's finished model into the package, its weights rounded to bf16."""
    final = run / "final"
    directory.mkdir(parents=True, exist_ok=True)
    for file in final.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, directory / file.name)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(final / "model.safetensors").items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = orjson.loads((directory / "config.json").read_bytes())
    config["dtype"] = "bfloat16"
    (directory / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))


def _texts(corpus: Path) -> Iterator[str]:
    with corpus.open("rb") as file:
        for line in file:
            yield orjson.loads(line)["text"]


def main() -> None:
    """The command line of this page."""
    parser = argparse.ArgumentParser(description="Make the embedded base model.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    corpus = verbs.add_parser("corpus", help="write corpus, tokenizer and config")
    corpus.add_argument("folder", type=Path)
    corpus.add_argument("--tokens", type=int, default=CORPUS_TOKENS)
    weights = verbs.add_parser("install", help="put a finished run's weights into the package")
    weights.add_argument("run", type=Path)
    given = parser.parse_args()
    if given.verb == "corpus":
        write_ingredients(given.folder, num_tokens=given.tokens)
    else:
        install(given.run)


if __name__ == "__main__":
    main()
