"""A Modelfile beside the GGUF file: FROM, TEMPLATE where one could be derived and proved, PARAMETER stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from burnish.export.go_template import NotDerivable, derive
from burnish.export.source import Source
from burnish.types import Message


def write_modelfile(source: Source, gguf: str, path: Path, *, begins_with_bos: bool) -> list[str]:
    """Write the Modelfile; returns what its user should know."""
    remarks, lines = [], [f"FROM ./{gguf}"]
    try:
        lines.append(f'TEMPLATE """{_template(source, begins_with_bos=begins_with_bos)}"""')
        remarks.append(
            "the Modelfile's TEMPLATE has turns and a system prompt, and neither tools nor reasoning"
        )
    except NotDerivable as why:
        remark = f"the Modelfile has no TEMPLATE: {why}; write one, or serve with llama.cpp or vLLM, which read Jinja"
        lines.append(f"# {' '.join(remark.split())}")
        remarks.append(remark)
    tokenizer = source.tokenizer.tokenizer
    lines += [f"PARAMETER stop {_quoted(tokenizer.convert_ids_to_tokens(stop))}" for stop in source.stop_ids]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return remarks


def _template(source: Source, *, begins_with_bos: bool) -> str:
    template = source.tokenizer.template
    if template is None:
        return "{{ .Prompt }}"

    def render(messages: Sequence[Message], prompt: bool) -> str:
        return template.render(messages, add_generation_prompt=prompt)

    turns = derive(render)
    if begins_with_bos:
        # llama.cpp puts BOS first by itself where the file says so: written here too, there would be two.
        turns = turns.without(str(source.tokenizer.tokenizer.bos_token))
    return turns.go()


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text else f'"{text}"'
