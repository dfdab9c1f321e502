"""The other side of a GGUF file: read back, dequantised and compared with the merged weights, tensor by tensor.

    python -P cold_gguf.py FILE.gguf MERGED_DIRECTORY PROBE.json REPORT.json

Run by path, in a new process, with gguf, transformers and safetensors alone. The tensors are compared by formulas of
this file's own; the logits come from transformers' own GGUF reader, which nobody here wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, pre_tokenizers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

Check = dict[str, Any]
Array = np.ndarray[Any, Any]

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
SPLITS = {  # what llama.cpp (src/llama-vocab.cpp) does under each name, one expression after the other
    "gpt-2": [GPT2_SPLIT],
    "smollm": [r"\p{N}", GPT2_SPLIT],
    "llama-bpe": [
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "qwen2": [
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
}
TEXTS = (
    "Hello, world! It's 12345.67 o'clock;  two  spaces\tand a tab\n\n\nthree lines ",
    "I'LL we'Ve DON'T 1 22 333 4444 x1y2 naïve Straße 日本語 🙂 e\u0301\r\n  indented(code) == {'a': [1, 2]}  ",
    "   \n \t leading, trailing   ",
)

DRIFT = {"f16": 2**-7, "q8_0": 2**-4, "q4_0": 0.5}
"""How far logits may be from those of the merged weights, as a share of the largest of them."""


def examine(path: Path, merged: Path, probe_path: Path) -> list[Check]:
    """All checks of a GGUF file against the merged model that it was made of."""
    probe = json.loads(probe_path.read_text(encoding="utf-8"))
    try:
        reader = GGUFReader(path)
    except Exception as error:
        return [failed("gguf_reads", error)]
    checks = [attempt(f"gguf_{name}", check, reader, merged, probe) for name, check in ON_FILE.items()]
    checks.append(on_tensors(reader, merged))
    try:
        checks.append(on_logits(path, merged, probe, probe_path))
    except Exception as error:
        checks.append(failed("gguf_logits", error))
    return checks


def attempt(name: str, check: Callable[..., tuple[Any, Any]], *given: Any) -> Check:
    """A check by its saw and expected."""
    try:
        saw, expected = check(*given)
    except Exception as error:
        return failed(name, error)
    return {"check": name, "ok": saw == expected, "saw": saw, "expected": expected}


def failed(name: str, error: Exception) -> Check:
    """A check that could not be made."""
    return {
        "check": name,
        "ok": False,
        "saw": f"{type(error).__name__}: {error}"[:2000],
        "expected": "no error",
    }


def field(reader: GGUFReader, name: str) -> Any:
    """A value of the metadata, None where it is not there."""
    found = reader.get_field(name)
    return None if found is None else found.contents()


# ---- metadata


def template(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """The chat template, character for character."""
    return field(reader, "tokenizer.chat_template"), probe["template"]


def stops(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """The ids that llama.cpp ends generation at."""
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    found = {field(reader, f"tokenizer.ggml.{name}") for name in names} - {None}
    return sorted(int(stop) for stop in found), probe["stop_ids"]


def first_token(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """Whether llama.cpp will put BOS in front, and EOS behind: as the prompts of training had it."""
    adds = [field(reader, "tokenizer.ggml.add_bos_token"), field(reader, "tokenizer.ggml.add_eos_token")]
    bos = field(reader, "tokenizer.ggml.bos_token_id")
    prompts = [one["prompt_ids"] for one in probe["probes"] if "prompt_ids" in one]
    begins = bos is not None and bool(prompts) and all(ids[:1] == [bos] for ids in prompts)
    return adds, [begins, False]


def tokens(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """Every token's text, by id, beside what the tokenizer says; where they part, the first few."""
    tokenizer = AutoTokenizer.from_pretrained(merged, local_files_only=True)
    found = field(reader, "tokenizer.ggml.tokens")
    expected = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    apart = [
        (k, a, b) for k, (a, b) in enumerate(zip(found, expected, strict=False)) if b is not None and a != b
    ]
    return [len(found), apart[:5]], [probe["rows"], []]


def kinds(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """Special tokens are control tokens, and the stops are among them or at least tokens of their own."""
    added = AutoTokenizer.from_pretrained(merged, local_files_only=True).added_tokens_decoder
    found = field(reader, "tokenizer.ggml.token_type")
    return {k: int(found[k]) for k in added}, {k: 3 if token.special else 4 for k, token in added.items()}


def merges(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """The merges in their order: applied to nothing but themselves, each must make a token."""
    spelled = json.loads((merged / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    found = field(reader, "tokenizer.ggml.merges")
    pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ", 1)) for pair in spelled]
    apart = [k for k, pair in enumerate(pairs) if k >= len(found) or tuple(found[k].split(" ", 1)) != pair]
    return [len(found), apart[:5]], [len(pairs), []]


def splitter(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """Texts cut as llama.cpp cuts them under the file's name for it, beside the tokenizer's own cuts."""
    tokenizer = Tokenizer.from_file(str(merged / "tokenizer.json"))
    steps = [
        pre_tokenizers.Split(Regex(one), "isolated") for one in SPLITS[field(reader, "tokenizer.ggml.pre")]
    ]
    named = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    cuts = [[piece for piece, _ in named.pre_tokenize_str(text)] for text in TEXTS]
    return cuts, [[piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] for text in TEXTS]


def sizes(reader: GGUFReader, merged: Path, probe: dict[str, Any]) -> tuple[Any, Any]:
    """What llama.cpp builds the model from, beside config.json; rounded as fp32 rounds."""
    config = AutoConfig.from_pretrained(merged, local_files_only=True)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    expected = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": width,
        "rope.freq_base": float(np.float32(rope["rope_theta"])),
        "attention.layer_norm_rms_epsilon": float(np.float32(config.rms_norm_eps)),
        "rope.scaling.factor": float(np.float32(rope["factor"])) if rope["rope_type"] == "linear" else None,
        "has_rope_freqs": rope["rope_type"] == "llama3",
    }
    family = field(reader, "general.architecture")
    found = {name: field(reader, f"{family}.{name}") for name in expected}
    found["has_rope_freqs"] = any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors)
    return [family, found], [config.model_type, expected]


ON_FILE: dict[str, Callable[..., tuple[Any, Any]]] = {
    "template": template,
    "stop_ids": stops,
    "bos": first_token,
    "tokens": tokens,
    "token_kinds": kinds,
    "merges": merges,
    "splitter": splitter,
    "sizes": sizes,
}


# ---- tensors


def on_tensors(reader: GGUFReader, merged: Path) -> Check:
    """Every tensor of the merged model is in the file, within what its format can hold; and nothing else is."""
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    stored = {tensor.name: tensor for tensor in reader.tensors}
    wrong, worst, count = [], 0.0, 0
    for name, weight in merged_tensors(merged):
        count += 1
        tensor = stored.pop(gguf_name(name), None)
        if tensor is None or list(reversed(tensor.shape.tolist())) != list(weight.shape):
            wrong.append(f"{name}: {'missing' if tensor is None else tensor.shape.tolist()}")
            continue
        found = dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape).astype(np.float32)
        share = excess(rows_back(found, name, config), weight, tensor.tensor_type)
        worst = max(worst, share)
        if not share <= 1.0:
            wrong.append(f"{name}: off by {share:.3g} times what {tensor.tensor_type.name} allows")
    wrong += [f"{name}: in the file alone" for name in stored if name != "rope_freqs.weight"]
    saw = {"tensors": count, "wrong": wrong[:5], "largest_share_of_bound": worst}
    return {"check": "gguf_tensors", "ok": not wrong and count > 0, "saw": saw, "expected": {"wrong": []}}


def merged_tensors(merged: Path) -> Iterator[tuple[str, Array]]:
    """The merged model's tensors in fp32, one at a time."""
    for path in sorted(merged.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                yield name, file.get_tensor(name).to(torch.float32).numpy()


PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`, as llama.cpp's loader asks for it."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{PARTS.get(part, part)}.{kind}"


def rows_back(found: Array, name: str, config: dict[str, Any]) -> Array:
    """Llama's q and k with each head's rows in transformers' order again: even rows first, then the odd ones."""
    part = name.rsplit(".", 2)[-2]
    if config["model_type"] != "llama" or part not in ("q_proj", "k_proj"):
        return found
    heads = config["num_attention_heads"] if part == "q_proj" else config.get("num_key_value_heads")
    width = len(found) // (heads or config["num_attention_heads"])
    order = [
        start + k for start in range(0, len(found), width) for k in (*range(0, width, 2), *range(1, width, 2))
    ]
    return found[order]


def excess(found: Array, weight: Array, kind: GGMLQuantizationType) -> float:
    """The largest error as a share of what the format allows there; infinite where a number is not finite."""
    if not np.isfinite(found).all():
        return float("inf")
    return float((np.abs(found - weight) / allowed(weight, kind)).max())


def allowed(weight: Array, kind: GGMLQuantizationType) -> Array:
    """How far each dequantised number may be from the weight.

    q8_0 and q4_0 hold 32 numbers as integers times one fp16 step: half a step, and the rounding of the step itself.
    q4_0 has 8 steps on the side of the largest number and 7 on the other, where the rest is cut off.
    """
    size = np.abs(weight)
    if kind == GGMLQuantizationType.F32:
        return np.full_like(weight, 1e-30)
    if kind == GGMLQuantizationType.F16:
        return size * np.float32(2**-11) + np.float32(2**-25)
    steps = 127 if kind == GGMLQuantizationType.Q8_0 else 8
    largest = size.reshape(-1, 32).max(-1, keepdims=True).repeat(32, -1).reshape(weight.shape)
    step = largest / steps
    cut = np.maximum(step / 2, size - 7 * step) if steps == 8 else step / 2
    most: Array = cut * np.float32(1.001) + largest * np.float32(2**-11) + np.float32(steps * 2**-25)
    return most


# ---- logits


@torch.no_grad()
def on_logits(path: Path, merged: Path, probe: dict[str, Any], probe_path: Path) -> Check:
    """The file in transformers' own GGUF reader, asked the probes: near the merged model, and how near.

    The config is that of the merged model, for the reader takes some sizes from its defaults; `sizes` looks at those.
    """
    config = AutoConfig.from_pretrained(merged, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, config=config, dtype=torch.float32
    ).eval()
    asked = [one for one in probe["probes"] if "prompt_ids" in one]
    share, divergence, same, positions = 0.0, 0.0, 0, 0
    with safe_open(probe_path.with_suffix(".safetensors"), framework="pt") as file:
        for k, one in enumerate(asked):
            reference = file.get_tensor(f"logits.{k}")
            rows = model(input_ids=torch.tensor([one["prompt_ids"] + one["answer_ids"]])).logits[0]
            first = len(one["prompt_ids"]) - 1
            found = rows[first : first + len(reference)]
            share = max(share, float((found - reference).abs().max() / reference.abs().max().clamp_min(1e-3)))
            divergence += float(kl(reference, found).sum())
            same += int((found.argmax(-1) == reference.argmax(-1)).sum())
            positions += len(reference)
    most = DRIFT[probe["quantization"]]
    saw = {
        "share_of_largest_logit": share,
        "kl": divergence / max(1, positions),
        "same_next_token": same / max(1, positions),
        "positions": positions,
    }
    return {
        "check": "gguf_logits",
        "ok": share <= most,
        "saw": saw,
        "expected": {"share_of_largest_logit": most},
    }


def kl(reference: Tensor, found: Tensor) -> Tensor:  # (T, V), (T, V) -> (T,)
    """The divergence of the file's distributions from those of the merged weights, in nats."""
    logs = reference.double().log_softmax(-1)
    return (logs.exp() * (logs - found.double().log_softmax(-1))).sum(-1)


def main(path: str, merged: str, probe: str, report: str) -> None:
    """Write the report of one examination."""
    disable_progress_bar()
    checks = examine(Path(path), Path(merged), Path(probe))
    warm = sorted(name for name in sys.modules if name.split(".")[0] == "burnish")
    checks.append({"check": "gguf_nothing_of_burnish", "ok": not warm, "saw": warm, "expected": []})
    Path(report).write_text(json.dumps(checks, default=str), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
