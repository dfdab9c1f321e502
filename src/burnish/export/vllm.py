"""The command that serves an export with vLLM: as an argument list, for no shell should have to read it."""

from __future__ import annotations

from pathlib import Path

import orjson
import torch

from burnish.export.adapter_facts import AdapterFacts
from burnish.export.source import Source


def serve_command(
    source: Source, adapter: AdapterFacts | None, out: Path, *, dtype: torch.dtype
) -> list[str]:
    """`vllm serve` for the folder `out`: the merged model, or its base with the adapter beside it.

    vLLM takes tokenizer, template and stop ids from the base, unless it is told; so it is told, for an adapter.
    """
    place = str(out.resolve())
    words = ["vllm", "serve"]
    if adapter is None:
        words += [place, "--served-model-name", source.name, "--dtype", str(dtype).removeprefix("torch.")]
    else:
        words += [source.base, "--enable-lora", "--lora-modules", f"{source.name}={place}"]
        words += ["--max-lora-rank", str(adapter.vllm_rank), "--tokenizer", place]
    if (source.place / "chat_template.jinja").is_file():
        words += ["--chat-template", f"{place}/chat_template.jinja"]
    words += ["--generation-config", place]
    if source.identity.chat_template_kwargs:
        words += [
            "--default-chat-template-kwargs",
            orjson.dumps(source.identity.chat_template_kwargs).decode(),
        ]
    return words
