"""Tensors to a safetensors file in one stream, hashed on their way from memory.

The hash is that of what was meant to be written: hashing the file afterwards would bless whatever is in it. The
format is a length, a JSON header and the numbers; the safetensors library reads the file back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from burnish.checkpoint.faults import point

CHUNK = 1 << 24
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, int | str]:
    """Write and flush; the manifest's entry: bytes and SHA-256 of what was in memory."""
    return write_stream(path, _stream(tensors))


def write_stream(path: Path, parts: Iterator[memoryview]) -> dict[str, int | str]:
    """Write the parts of a file, flush it to disk, and say how many bytes it has and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    point(f"open:{path.name}", path)
    with path.open("xb", buffering=0) as file:
        for part in parts:
            digest.update(part)
            size += len(part)
            while part:
                point(f"write:{path.name}", path)
                part = part[file.write(part) :]
        point(f"flush:{path.name}", path)
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each rank holds a part (torch's DTensor), gathered by all together; any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def _stream(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    header: dict[str, object] = {}
    at = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    yield memoryview(len(said).to_bytes(8, "little") + said)
    for tensor in tensors.values():
        if tensor.numel() == 0:
            continue
        flat = whole(tensor).detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        content = memoryview(flat.numpy().data)
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
