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

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from burnish.adapters.apply import merged
from burnish.errors import UsageError
from burnish.export.adapter_facts import AdapterFacts
from burnish.export.card import write_card
from burnish.export.cold import near, same_answers
from burnish.export.forms import GGUF_NAME, Form, Order
from burnish.export.gguf_file import require_family, write_gguf
from burnish.export.inverse import inverse_of, way_back
from burnish.export.ollama import write_modelfile
from burnish.export.parity import COLD, COLD_GGUF, Parity, run_cold
from burnish.export.probe import EXACT, ROUNDED, answer_logits, base_of, described, take, write_probe
from burnish.export.source import Source, open_source
from burnish.export.vllm import serve_command
from burnish.export.weights import load_trained, write_adapter, write_model


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
    if form is Form.VLLM and adapter is not None:
        obstacles = adapter.vllm_obstacles()
        return (None, [f"merged, for vLLM cannot load the adapter: {'; '.join(obstacles)}"]) if obstacles else (adapter, [])
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
    staging.rename(order.out)


def _stage_adapter(source: Source, adapter: AdapterFacts, staging: Path, scratch: Path, parity: Parity) -> None:
    model = load_trained(source)
    probes, logits = take(model, source)
    # The embedding may carry trained rows of its own around the base's weight: rows are counted, dtypes read, on disk.
    written = {**described(model), "dtypes": adapter.dtypes, "base": base_of(source)}
    probe = write_probe(scratch, source, probes, logits, written=written)
    del model
    write_adapter(source, adapter, staging)
    parity.notes["inverse"] = way_back(adapter)
    parity.checks += run_cold(COLD, staging, probe, scratch / "report.json")


def _stage_whole(source: Source, order: Order, staging: Path, scratch: Path, parity: Parity) -> None:
    """Merge, cast, write; prove the merge and the cast here, and what was written in the cold."""
    dtype = source.dtype(order.dtype)
    model = load_trained(source)
    trained_probes, trained = take(model, source)
    if isinstance(model, PeftModel):
        parity.notes["inverse"] = inverse_of(model, source, dtype)
        model = merged(model).eval()
        found = [answer_logits(model, p["prompt_ids"], p["answer_ids"]) for p in trained_probes if "answer_ids" in p]
        parity.checks.append(near("merge", found, trained, **MERGED))
    else:
        parity.notes["inverse"] = way_back(None)
    write_model(model, source, dtype, staging)
    written = {**described(model), "base": None}
    probes, logits = take(model.float(), source)
    parity.checks.append(near("rounding", logits_of(model, trained_probes), trained, **ROUNDED[dtype]))
    parity.checks.append(
        same_answers("rounding_greedy", answers(probes), answers(trained_probes), logits_of(model, trained_probes), trained)
    )
    probe = write_probe(scratch, source, probes, logits, written=written)
    del model
    parity.checks += run_cold(COLD, staging, probe, scratch / "report.json")
