"""A finished run out of the door: written beside its place, examined cold, and only then given its name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel

from burnish.adapters.save import merged
from burnish.errors import UsageError
from burnish.export.adapter_facts import AdapterFacts
from burnish.export.card import write_card
from burnish.export.cold import near, same_answers
from burnish.export.forms import GGUF_NAME, Form, Order
from burnish.export.gguf_file import Chat, require_family, write_gguf
from burnish.export.inverse import inverse_of, way_back
from burnish.export.ollama import write_modelfile
from burnish.export.parity import COLD, COLD_GGUF, Parity, run_cold
from burnish.export.probe import (
    EXACT,
    ROUNDED,
    answers,
    ask_again,
    asked,
    base_of,
    described,
    take,
    tell_gguf,
    write_probe,
)
from burnish.export.source import Source, open_source
from burnish.export.vllm import serve_command
from burnish.export.weights import copy_chat, load_trained, write_adapter, write_model


@dataclass(frozen=True, slots=True)
class Exported:
    """What came out: the folder, what was proved of it, what its user should know."""

    out: Path
    form: Form
    checks: list[dict[str, Any]]
    command: list[str] | None = None
    remarks: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The result as `--json` prints it."""
        return {
            "out": str(self.out),
            "form": self.form.value,
            "checks": [check["check"] for check in self.checks],
            "command": self.command,
            "remarks": self.remarks,
        }


def export(order: Order) -> Exported:
    """Export a finished run; ParityFailed, and nothing at `order.out`, where the result is not what was trained."""
    _require_free(order.out)
    source = open_source(order.run)
    adapter, remarks = _as_adapter(source, order.form)
    if order.form in (Form.GGUF, Form.OLLAMA):
        require_family(source.config, source.place, order)
    with _workplace(order.out) as (staging, scratch):
        parity = Parity()
        if adapter is not None:
            _stage_adapter(source, adapter, staging, scratch, parity)
        else:
            _stage_whole(source, order, staging, scratch, parity)
        command = None
        match order.form:
            case Form.VLLM:
                command = serve_command(source, adapter, order.out, dtype=source.dtype(order.dtype))
            case Form.GGUF | Form.OLLAMA:
                remarks += _stage_gguf(source, order, staging, scratch, parity)
        write_card(source, order, staging, parity=parity, command=command, remarks=remarks)
        _keep(order, source, staging, parity)
    return Exported(order.out, order.form, parity.checks, command, remarks)


def _require_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} is there already, and is not an empty folder",
            rule="an export is written whole or not at all, and never over something else",
            remedy="give another folder: --out DIR",
        )


def _as_adapter(source: Source, form: Form) -> tuple[AdapterFacts | None, list[str]]:
    """The adapter where the form is to be one, and what should be said of that choice."""
    adapter = source.adapter
    if form is Form.ADAPTER and adapter is None:
        raise UsageError(
            f"{source.run.path} was trained with adapter: {source.recipe.adapter}, and has no adapter",
            rule="--to adapter exports what a run trained beside a frozen base",
            remedy="export the whole model: --to hf",
        )
    if form is Form.ADAPTER:
        return adapter, []
    if adapter is not None and adapter.is_bottleneck:
        raise UsageError(
            f"{source.run.path} was trained with adapter: bottleneck",
            rule="a bottleneck computes between the layers: no matrix holds it, and vLLM and llama.cpp have none",
            remedy="export --to adapter, which brings a loader for transformers; or train with adapter: lora",
        )
    if form is Form.VLLM and adapter is not None:
        obstacles = adapter.vllm_obstacles()
        if not obstacles:
            return adapter, []
        return None, [f"merged, for vLLM cannot load the adapter: {'; '.join(obstacles)}"]
    return None, []


@contextmanager
def _workplace(out: Path) -> Iterator[tuple[Path, Path]]:
    """A folder beside `out` to build it in, and one for the probe; both are gone in the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.parent / f".{out.name}.{os.getpid()}.part"
    staging.mkdir()
    try:
        with tempfile.TemporaryDirectory(prefix="burnish-parity-") as scratch:
            yield staging, Path(scratch)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _keep(order: Order, source: Source, staging: Path, parity: Parity) -> None:
    """Give the folder its name if every check held; else leave the report alone, beside the name."""
    said = {"run": str(source.run.path), "form": order.form.value}
    report = order.out.parent / f"{order.out.name}.parity.json"
    if parity.failed:
        parity.write(report, **said)
        parity.require(report)
    parity.write(staging / "parity.json", **said)
    report.unlink(missing_ok=True)  # of an earlier try
    for (
        path
    ) in staging.iterdir():  # safetensors writes for its owner alone; a folder to hand on is read by others
        path.chmod((staging / "parity.json").stat().st_mode)
    staging.rename(order.out)


def _stage_adapter(
    source: Source, adapter: AdapterFacts, staging: Path, scratch: Path, parity: Parity
) -> None:
    """Copy the adapter, and prove it on its base."""
    model = load_trained(source)
    probes, logits = take(model, source)
    written = {**described(model), "dtypes": list(adapter.dtypes), "base": base_of(source)}
    probe = write_probe(scratch, source, probes, logits, written=written)
    del model
    write_adapter(source, adapter, staging)
    parity.notes["inverse"] = way_back(adapter)
    parity.checks += run_cold(COLD, staging, probe, scratch / "report.json")


def _stage_whole(source: Source, order: Order, staging: Path, scratch: Path, parity: Parity) -> None:
    """Merge, cast, write; prove merge and cast here, and what was written in the cold."""
    dtype = source.dtype(order.dtype)
    model = load_trained(source)
    probes, trained = take(model, source)
    parity.notes["inverse"] = (
        inverse_of(model, source, dtype) if isinstance(model, PeftModel) else way_back(None)
    )
    if isinstance(model, PeftModel):
        model = merged(model).eval()
        parity.checks.append(near("merge", ask_again(model, probes), trained, **EXACT))
    write_model(model, source, dtype, staging)
    written = {**described(model), "base": None}
    model.float()
    again, logits = take(model, source)
    found = ask_again(model, probes)
    parity.checks.append(near("rounding", found, trained, **ROUNDED[dtype]))
    parity.checks.append(same_answers("rounding_greedy", answers(again), answers(probes), found, trained))
    probe = write_probe(scratch, source, again, logits, written=written)
    del model
    parity.checks += run_cold(COLD, staging, probe, scratch / "report.json")


def _stage_gguf(source: Source, order: Order, staging: Path, scratch: Path, parity: Parity) -> list[str]:
    """Make the GGUF file of the merged folder, prove it against that folder, and leave it in the folder's place."""
    hub = scratch / "merged"
    shutil.move(staging, hub)
    staging.mkdir()
    name = GGUF_NAME.format(order.quantization.value)
    chat = chat_of(source)
    write_gguf(hub, staging / name, order.quantization, chat, name=source.name)
    probe = tell_gguf(scratch / "probe.json", order.quantization)
    parity.checks += run_cold(COLD_GGUF, staging / name, hub, probe, scratch / "report-gguf.json")
    copy_chat(source, staging)
    shutil.copyfile(hub / "generation_config.json", staging / "generation_config.json")
    if order.form is Form.OLLAMA:
        return write_modelfile(source, name, staging / "Modelfile", begins_with_bos=chat.begins_with_bos)
    return []


def chat_of(source: Source) -> Chat:
    """What a GGUF file has to say of chat, as training fed it."""
    tokenizer = source.tokenizer.tokenizer
    probes = [probe["prompt_ids"] for probe in asked(source) if "prompt_ids" in probe]
    bos = tokenizer.bos_token_id
    return Chat(
        template=source.tokenizer.template.source if source.tokenizer.template else None,
        stop_ids=source.stop_ids,
        eos_id=tokenizer.eos_token_id,
        bos_id=bos,
        begins_with_bos=bos is not None and bool(probes) and all(ids[:1] == [bos] for ids in probes),
    )
