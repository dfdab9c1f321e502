"""A merged model as one GGUF file: Llama, Qwen2 and Qwen3 families, in f16, q8_0 or q4_0, through the `gguf` package.

Tensors are read from safetensors, quantised and written one at a time. Two things are not copies: of Llama's q and k,
llama.cpp interleaves the halves of each head (its RoPE pairs neighbours, transformers' pairs halves); and a tied head
is not written at all.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open

from burnish.errors import DataError, UsageError
from burnish.export.forms import Order, Quantization
from burnish.export.gguf_vocabulary import Vocabulary, read_vocabulary, splitter_name
from burnish.models.locate import read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture as llama.cpp names it, and whether its q and k rows are turned about."""

    architecture: str
    permuted: bool = False


FAMILIES = {"llama": Family("llama", permuted=True), "qwen2": Family("qwen2"), "qwen3": Family("qwen3")}

KNOWN_ROPE = ("default", "linear", "llama3")
PRECISE = ("token_embd.weight", "output.weight")
"""Left at 8 bits in a q4_0 file: errors here go straight into the logits."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What the file says of chat: the template, the ids generation ends at, whether prompts begin with BOS."""

    template: str | None
    stop_ids: list[int]
    eos_id: int
    bos_id: int | None
    begins_with_bos: bool


def require_family(config: dict[str, Any], place: Path, order: Order) -> None:
    """UsageError, with llama.cpp's own command, where burnish writes no GGUF for a model, or gguf is not installed."""
    family, why = config.get("model_type"), ""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if family not in FAMILIES:
        why = f"model_type {family!r}"
    elif rope.get("rope_type", "default") not in KNOWN_ROPE:
        why = f"rope_type {rope.get('rope_type')!r}"
    elif config.get("use_sliding_window") or config.get("mlp_bias"):
        why = "a sliding window" if config.get("use_sliding_window") else "biases in the MLP"
    if why:
        merged = f"{order.out}-hf"
        kind = order.quantization.value
        commands = [f"burnish export {shlex.quote(str(order.run))} --to hf --out {shlex.quote(merged)}"]
        direct = "f16" if kind == "q4_0" else kind
        commands.append(
            f"python llama.cpp/convert_hf_to_gguf.py {shlex.quote(merged)} --outtype {direct} "
            f"--outfile {shlex.quote(f'{order.out}-{direct}.gguf')}"
        )
        if kind == "q4_0":
            names = [shlex.quote(f"{order.out}-{one}.gguf") for one in ("f16", "q4_0")]
            commands.append(f"llama.cpp/build/bin/llama-quantize {' '.join(names)} Q4_0")
        raise UsageError(
            f"{why}: burnish has no GGUF for it",
            rule=f"burnish writes GGUF for {', '.join(FAMILIES)}, and checks every tensor of it",
            remedy="  &&  ".join(commands),
        )
    splitter_name(read_json(place / "tokenizer.json"))
    require_package()


def require_package() -> None:
    """UsageError where the `gguf` package is not installed."""
    try:
        import gguf  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise UsageError(
            "the package gguf is not installed",
            rule="GGUF files are written through llama.cpp's own package",
            remedy="pip install 'burnish[gguf]'",
        ) from error


def write_gguf(directory: Path, path: Path, quantization: Quantization, chat: Chat, *, name: str) -> None:
    """Write the model of a transformers directory as one GGUF file."""
    import gguf

    config = read_json(directory / "config.json")
    family = FAMILIES[config["model_type"]]
    writer = gguf.GGUFWriter(path, family.architecture)
    shapes = dict(tensor_shapes(directory))
    vocabulary = read_vocabulary(directory, rows=shapes["model.embed_tokens.weight"][0])
    _describe(writer, config, quantization, name)
    _describe_vocabulary(writer, vocabulary, chat)
    names = gguf_names(family, config, shapes)
    plan = [(names[key], key, stored_as(names[key], shape, quantization)) for key, shape in shapes.items()]
    factors = rope_factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for target, key, kind in plan:
        numbers = int(np.prod(shapes[key]))
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(
            target, shapes[key], np.dtype(np.float32), numbers // block * size, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for _, key, kind in plan:
        writer.write_tensor_data(
            gguf.quantize(arranged(read_tensor(directory, key), key, family, config), kind)
        )
    writer.close()


def stored_as(name: str, shape: tuple[int, ...], quantization: Quantization) -> Any:
    """The kind that a tensor is stored as: vectors in fp32, rows that blocks of 32 do not fit in f16."""
    from gguf import GGMLQuantizationType as Kind

    if len(shape) == 1:
        return Kind.F32
    if quantization is Quantization.F16 or shape[-1] % 32:
        return Kind.F16
    return Kind.Q8_0 if quantization is Quantization.Q8_0 or name in PRECISE else Kind.Q4_0


def gguf_names(family: Family, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """llama.cpp's name of every tensor; DataError where one has none."""
    import gguf

    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == family.architecture)
    known = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    names = {key: known.get_name(key, try_suffixes=(".weight", ".bias")) for key in shapes}
    nameless = [key for key, name in names.items() if name is None]
    if nameless:
        raise DataError(
            f"{nameless[0]}: llama.cpp's {family.architecture} has no such tensor",
            rule="every tensor of the model is in the GGUF file",
            remedy="export --to hf, and convert with llama.cpp's convert_hf_to_gguf.py",
        )
    return {key: str(name) for key, name in names.items()}


def arranged(weight: Array, key: str, family: Family, config: dict[str, Any]) -> Array:
    """A tensor as llama.cpp wants its rows: of Llama's q and k, each head's two halves are interleaved.

    Rows of one head of width 6, by number:  0 1 2 | 3 4 5  ->  0 3 1 4 2 5
    """
    heads = config["num_attention_heads"]
    if not family.permuted or key.rsplit(".", 2)[-2] not in ("q_proj", "k_proj"):
        return weight
    if ".k_proj." in key:
        heads = config.get("num_key_value_heads") or heads
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def rope_factors(config: dict[str, Any]) -> Array | None:
    """What Llama 3.1 divides each RoPE frequency by: long waves by `factor`, short ones by 1."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type") != "llama3":
        return None
    width = head_width(config)
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    low, high, context = (
        rope["low_freq_factor"],
        rope["high_freq_factor"],
        rope["original_max_position_embeddings"],
    )
    factors = []
    for k in range(0, width, 2):
        wave = 2 * math.pi * theta ** (k / width)
        smooth = min(1.0, max(0.0, (context / wave - low) / (high - low)))
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def head_width(config: dict[str, Any]) -> int:
    """The width of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def tensor_shapes(directory: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the safetensors files by name, with its shape."""
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                yield name, tuple(file.get_slice(name).get_shape())


def read_tensor(directory: Path, name: str) -> Array:
    """One tensor in fp32."""
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118 - not a dict
                array: Array = file.get_tensor(name).to(torch.float32).numpy()
                return array
    raise KeyError(name)


def _describe(writer: GGUFWriter, config: dict[str, Any], quantization: Quantization, name: str) -> None:
    import gguf

    heads, width = config["num_attention_heads"], head_width(config)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = {
        Quantization.F16: gguf.LlamaFileType.MOSTLY_F16,
        Quantization.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
        Quantization.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0,
    }
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(kinds[quantization])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _describe_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, chat: Chat) -> None:
    """The tokenizer, and how chat ends. llama.cpp stops at eos, eot and eom; more ids than three do not fit."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    others = [stop for stop in chat.stop_ids if stop != chat.eos_id]
    if len(others) > 2:
        raise DataError(
            f"training stops at {len(others) + 1} tokens: {chat.stop_ids}",
            rule="a GGUF file names three ids that end an answer: eos, eot and eom",
            remedy="export --to hf or vllm, which take any number",
        )
    writer.add_eos_token_id(chat.eos_id)
    for write, stop in zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False):
        write(stop)
    if chat.bos_id is not None:
        writer.add_bos_token_id(chat.bos_id)
    # Told by what training fed, not by what the tokenizer would do to plain text: a second BOS, or one too many.
    writer.add_add_bos_token(chat.begins_with_bos)
    writer.add_add_eos_token(False)
    if chat.template is not None:
        writer.add_chat_template(chat.template)
