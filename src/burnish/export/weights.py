"""The run's weights: as training left them, in fp32; merged; written in the dtype that was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import GenerationConfig, PreTrainedModel

from burnish.adapters.bottleneck import load_bottleneck
from burnish.errors import DataError
from burnish.export.adapter_facts import WEIGHTS, AdapterFacts
from burnish.export.source import Source
from burnish.models.identity import CHAT_JSON
from burnish.models.load import add_token_rows, load_model, save_model
from burnish.models.locate import read_json
from burnish.models.rope import scale_positions

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)

CPU = torch.device("cpu")


LOADER = Path(__file__).with_name("bottleneck_loader.py")


def load_trained(source: Source) -> PreTrainedModel | PeftModel:
    """The model as training left it, in fp32: the base with the adapter on it, or the whole model of final/."""
    if source.adapter is None:
        return load_model(str(source.run.final), dtype=torch.float32, device=CPU).eval()
    base = load_model(source.recipe.model, dtype=torch.float32, device=CPU)
    base = scale_positions(base, source.recipe.rope_scaling)
    rows = base.get_input_embeddings().weight.shape[0]
    add_token_rows(base, len(source.tokenizer), range(rows, len(source.tokenizer)))
    if source.adapter.is_bottleneck:
        return load_bottleneck(base, source.adapter.directory).eval()
    try:
        model = PeftModel.from_pretrained(base, source.adapter.directory)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _does_not_fit(source.adapter, f"{type(error).__name__}: {error}") from error
    _require_all_loaded(model, source.adapter)
    return model.eval()


def _require_all_loaded(model: PeftModel, adapter: AdapterFacts) -> None:
    """DataError where a tensor of the file has no place in the model, or a place has no tensor: PEFT only warns."""
    found = set(adapter.tensors)
    # PEFT also writes the embedding where its rows were added to; a copy of what the base has may be there or not.
    missing = sorted(get_peft_model_state_dict(model, save_embedding_layers=False).keys() - found)
    unused = sorted(found - get_peft_model_state_dict(model, save_embedding_layers=True).keys())
    if unused or missing:
        raise _does_not_fit(
            adapter,
            f"{len(missing)} tensors are missing ({(missing or ['none'])[0]}), "
            f"{len(unused)} fit nothing ({(unused or ['none'])[0]})",
        )


def _does_not_fit(adapter: AdapterFacts, why: str) -> DataError:
    return DataError(
        f"{adapter.directory / WEIGHTS}: {why}",
        rule="an adapter fits its base: each of its tensors has one place there, and each place its tensor",
        remedy="restore the run's adapter/; a renamed prefix makes an adapter without effect",
    )


def write_model(model: PreTrainedModel, source: Source, dtype: torch.dtype, out: Path) -> None:
    """Write a whole model as plain transformers reads it, cast once; the argument has that dtype from then on."""
    cast(model, dtype)
    save_model(model, source.tokenizer.tokenizer, out, stop_ids=source.stop_ids)
    copy_chat(source, out)


def cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast what is saved, and no more: `model.to` rounds RoPE's frequencies too, which a load computes anew."""
    saved = model.state_dict().keys()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in saved and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def write_adapter(source: Source, adapter: AdapterFacts, out: Path) -> None:
    """Write the adapter as PEFT reads it (a bottleneck: with a loader), naming the base as others find it."""
    out.mkdir(exist_ok=True)
    config_name, weights_name = adapter.files
    shutil.copyfile(adapter.directory / weights_name, out / weights_name)
    if adapter.is_bottleneck:
        shutil.copyfile(LOADER, out / "load_bottleneck.py")
    config = {**read_json(adapter.directory / config_name), "base_model_name_or_path": source.base}
    (out / config_name).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2) + b"\n")
    end = source.tokenizer.tokenizer
    GenerationConfig(
        bos_token_id=end.bos_token_id,
        eos_token_id=source.stop_ids,
        pad_token_id=end.pad_token_id if end.pad_token_id is not None else source.stop_ids[0],
    ).save_pretrained(out)
    copy_chat(source, out)


def copy_chat(source: Source, out: Path) -> None:
    """Copy tokenizer, template and chat.json from the run, byte for byte."""
    for name in (*TOKENIZER_FILES, CHAT_JSON):
        if (source.place / name).is_file():
            shutil.copyfile(source.place / name, out / name)


def float_dtypes(model: PreTrainedModel | PeftModel) -> list[str]:
    """The dtypes of a model's floating-point tensors, as safetensors spells them."""
    kinds = {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}
    return sorted(SPELLED[kind] for kind in kinds)


SPELLED = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
}
