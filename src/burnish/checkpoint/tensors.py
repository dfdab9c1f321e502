"""Tensors to a safetensors file and back, each in one stream that is hashed on its way.

The hash is that of what was meant to be written: hashing the file afterwards would bless whatever is in it. Read
back, it is that of the very bytes that are used. The format is a length, a JSON header and the numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from burnish.checkpoint.faults import point
from burnish.checkpoint.pace import at_once

CHUNK = 1 << 22
SERIAL = 1 << 14
"""Numbers of a tensor that torch adds up on the thread that asks. For twice as many it starts a team of threads, which
takes training's cores; and with more threads than cores OpenMP has training's sleep between any two operations."""
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
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], pace: Callable[[int], None] = at_once
) -> dict[str, int | str]:
    """Write and flush; the manifest's entry: bytes and SHA-256 of what was in memory."""
    return write_stream(path, _stream(tensors), pace)


def read_hashed(path: Path) -> tuple[Tensor, str]:
    """A file's bytes and their SHA-256, computed by a thread of each part while the next one is read."""
    whole = torch.empty(path.stat().st_size, dtype=torch.uint8)
    room, digest, at = memoryview(whole.numpy().data), hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1, "hash") as hasher:
        while read := file.readinto(room[at : at + CHUNK]):
            hasher.submit(digest.update, room[at : at + read])
            at += read
    return whole[:at], digest.hexdigest()


def tensors_in(whole: Tensor) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes, which they go on sharing."""
    start = 8 + int.from_bytes(whole[:8].numpy().tobytes(), "little")
    header = json.loads(whole[8:start].numpy().tobytes())
    header.pop("__metadata__", None)
    found = {}
    for name, said in header.items():
        first, end = (start + offset for offset in said["data_offsets"])
        dtype, part = _DTYPES[said["dtype"]], whole[first:end]
        # A view of larger numbers must begin at a multiple of their size.
        part = part.clone() if first % dtype.itemsize else part
        found[name] = part.view(dtype).reshape(said["shape"])
    return found


def write_stream(
    path: Path, parts: Iterator[memoryview], pace: Callable[[int], None] = at_once
) -> dict[str, int | str]:
    """Write the parts of a file, flush it to disk, and say how many bytes it has and their SHA-256.

    `pace` is told of each part that is written.
    """
    digest, size = hashlib.sha256(), 0
    point(f"open:{path.name}", path)
    with path.open("xb", buffering=0) as file:
        for part in parts:
            length = len(part)
            digest.update(part)
            size += length
            while part:
                point(f"write:{path.name}", path)
                part = part[file.write(part) :]
            pace(length)
        point(f"flush:{path.name}", path)
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def is_finite(tensor: Tensor, pace: Callable[[int], None] = at_once) -> bool:
    """Whether every number is; `pace` is told of what was looked at."""
    if not tensor.is_floating_point():
        return True
    if hasattr(tensor, "full_tensor"):  # each rank adds up its part; gathered only where that does not tell
        return _sums_up(tensor.detach()) or bool(torch.isfinite(whole(tensor)).all())
    flat = tensor.detach().reshape(-1)
    for start in range(0, len(flat), SERIAL):
        part = flat[start : start + SERIAL]
        if not _sums_up(part) and not bool(torch.isfinite(part).all()):
            return False
        pace(part.numel() * part.element_size())
    return True


def _sums_up(tensor: Tensor) -> bool:
    """Whether the sum is finite: it is not where a part is not, and may not be where all are, but large."""
    return math.isfinite(float(whole(tensor.sum())))


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
