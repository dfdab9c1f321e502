"""The parity gate lets through what was trained, and nothing that was changed since."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from burnish.__main__ import run as burnish
from burnish.errors import DataError, UsageError
from burnish.export import cold, export
from burnish.export.forms import Form, Order
from burnish.export.parity import ParityFailed
from tests.export.conftest import Staged, TrainedRun

StagedExport = Callable[[Form], Staged]


def edit(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def wrong_template_byte(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("'\\n'", "' '", 1))


def dropped_stop_id(folder: Path) -> None:
    path = folder / "generation_config.json"
    edit(path, eos_token_id=json.loads(path.read_text())["eos_token_id"][:1])


def head_untied(folder: Path) -> None:
    edit(folder / "config.json", tie_word_embeddings=False)
    rewrite(
        folder / "model.safetensors",
        lambda held: {**held, "lm_head.weight": held["model.embed_tokens.weight"].clone()},
    )


def head_untied_and_lost(folder: Path) -> None:
    edit(folder / "config.json", tie_word_embeddings=False)


def dtype_downgraded(folder: Path) -> None:
    edit(folder / "config.json", dtype="bfloat16")
    rewrite(folder / "model.safetensors", lambda held: {name: t.bfloat16() for name, t in held.items()})


def prefix_renamed(folder: Path) -> None:
    """PEFT loads this with a warning, and the adapter does nothing."""

    def change(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name.replace(".model.model.", ".model.", 1) if "lora_" in name else name: tensor
            for name, tensor in held.items()
        }

    rewrite(folder / "adapter_model.safetensors", change)


def outer_prefix_lost(folder: Path) -> None:
    rewrite(
        folder / "adapter_model.safetensors",
        lambda held: {name.removeprefix("base_model."): t for name, t in held.items()},
    )


def vocabulary_shrunk(folder: Path) -> None:
    edit(folder / "config.json", vocab_size=384)
    rewrite(
        folder / "model.safetensors",
        lambda held: {**held, "model.embed_tokens.weight": held["model.embed_tokens.weight"][:384].clone()},
    )


def one_row_moved(folder: Path) -> None:
    def change(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        held["model.layers.1.mlp.down_proj.weight"][3] *= 1.05
        return held

    rewrite(folder / "model.safetensors", change)


def merges_lost(folder: Path) -> None:
    path = folder / "tokenizer.json"
    spelled = json.loads(path.read_text())
    spelled["model"]["merges"] = spelled["model"]["merges"][:20]
    path.write_text(json.dumps(spelled))


FAULTS = [
    (Form.HF, wrong_template_byte, "template"),
    (Form.HF, dropped_stop_id, "stop_ids"),
    (Form.HF, head_untied, "tied"),
    (Form.ADAPTER, prefix_renamed, "keys"),
    (Form.HF, dtype_downgraded, "dtype"),
    # and six that nobody ordered
    (Form.HF, head_untied_and_lost, "keys"),
    (Form.HF, vocabulary_shrunk, "vocabulary"),
    (Form.HF, one_row_moved, "logits"),
    (Form.ADAPTER, outer_prefix_lost, "loads"),
    (Form.ADAPTER, dropped_stop_id, "stop_ids"),
    (Form.ADAPTER, merges_lost, "ids"),
]


@pytest.mark.parametrize("form", [Form.HF, Form.ADAPTER])
def test_an_export_that_nobody_touched_passes_every_check(staged: StagedExport, form: Form) -> None:
    export = staged(form)
    assert [check for check in export.checks if not check["ok"]] == []
    assert {"template", "ids", "stop_ids", "keys", "vocabulary", "dtype", "logits", "greedy"} <= {
        check["check"] for check in export.checks
    }
    saw = next(check["saw"] for check in export.checks if check["check"] == "logits")
    assert saw["probes"] >= 5


@pytest.mark.parametrize(
    ("form", "plant", "seen_by"), FAULTS, ids=lambda given: getattr(given, "__name__", None)
)
def test_a_planted_fault_is_caught(
    staged: StagedExport, tmp_path: Path, form: Form, plant: Callable[[Path], None], seen_by: str
) -> None:
    made = staged(form)
    copy = shutil.copytree(made.folder, tmp_path / "copy")
    plant(copy)
    failed = [check["check"] for check in cold.examine(copy, made.probe) if not check["ok"]]
    assert seen_by in failed


def test_merging_rounds_nothing_that_fp32_holds(staged: StagedExport) -> None:
    checks = {check["check"]: check for check in staged(Form.HF).checks}
    assert checks["merge"]["saw"]["largest_difference"] <= 1e-4
    assert checks["rounding"]["saw"]["largest_difference"] <= 1e-4


def test_an_export_is_examined_by_another_process_that_never_saw_burnish(
    trained_run: TrainedRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = str(trained_run(adapter="lora"))
    assert burnish(["export", run, "--to", "hf", "--out", str(out), "--json"]) == 0
    report = json.loads((out / "parity.json").read_text())
    assert report["ok"]
    assert {"check": "nothing_of_burnish", "ok": True, "saw": [], "expected": []} in report["checks"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["out"] == str(out)
    for name in ("chat.json", "chat_template.jinja", "generation_config.json", "README.md", "tokenizer.json"):
        assert (out / name).is_file()


def test_a_failing_export_ends_with_code_3_and_leaves_only_its_report(
    trained_run: TrainedRun,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write_and_spoil(model: Any, source: Any, dtype: Any, out: Path) -> None:
        write_model(model, source, dtype, out)
        wrong_template_byte(out)

    write_model = export.write_model
    monkeypatch.setattr(export, "write_model", write_and_spoil)
    run = str(trained_run(adapter="lora"))
    assert burnish(["export", run, "--to", "hf", "--out", str(tmp_path / "out")]) == 3
    assert "template" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.parity.json"]
    assert not json.loads((tmp_path / "out.parity.json").read_text())["ok"]


def test_a_crash_half_way_leaves_nothing(
    trained_run: TrainedRun, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*given: Any, **keys: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(export, "write_card", crash)
    with pytest.raises(OSError, match="no space"):
        export.export(Order(trained_run(adapter="lora"), Form.HF, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("plant", [prefix_renamed, outer_prefix_lost])
def test_an_adapter_of_the_run_with_another_prefix_is_refused_before_anything_is_written(
    trained_run: TrainedRun, tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    run = shutil.copytree(trained_run(adapter="lora"), tmp_path / "run")
    plant(run / "adapter")
    with pytest.raises(DataError, match="has one place there"):
        export.export(Order(run, Form.HF, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_whose_template_was_changed_after_training_is_refused(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    run = shutil.copytree(trained_run(adapter="lora"), tmp_path / "run")
    wrong_template_byte(run / "adapter")
    with pytest.raises(DataError, match="was trained with chat template"):
        export.export(Order(run, Form.HF, tmp_path / "out"))


def test_a_model_of_plain_text_leaves_without_a_template(
    trained_run: TrainedRun, tmp_path: Path, quick: None
) -> None:
    data = tmp_path / "text.jsonl"
    data.write_text(
        "".join(json.dumps({"text": f"The sun is bright, number {k}."}) + "\n" for k in range(16))
    )
    run = trained_run(adapter="full", datasets=str(data), sample_prompts=["The sun is"])
    result = export.export(Order(run, Form.OLLAMA, tmp_path / "out"))
    template = next(check for check in result.checks if check["check"] == "template")
    assert template["saw"] == [None, None]
    assert 'TEMPLATE """{{ .Prompt }}"""' in (tmp_path / "out" / "Modelfile").read_text()


def test_nothing_is_written_over(trained_run: TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        export.export(Order(trained_run(adapter="lora"), Form.HF, tmp_path))


def test_a_full_run_has_no_adapter_to_export(trained_run: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no adapter"):
        export.export(Order(trained_run(adapter="full"), Form.ADAPTER, tmp_path / "out"))


def test_an_unfinished_run_is_told_to_go_on(trained_run: TrainedRun, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run(adapter="full"), tmp_path / "run")
    shutil.rmtree(run / "final")
    with pytest.raises(UsageError, match="no finished model"):
        export.export(Order(run, Form.HF, tmp_path / "out"))


def test_a_failed_check_is_an_error_that_names_it() -> None:
    from burnish.export.parity import Parity

    parity = Parity([{"check": "tied", "ok": False, "saw": [False], "expected": [True]}])
    with pytest.raises(ParityFailed, match="tied saw"):
        parity.require(Path("report.json"))
