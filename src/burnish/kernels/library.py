"""The compiled library in this process, and what its functions take."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_float, c_int, c_int64, c_void_p
from functools import lru_cache

import torch  # before the library: it is to find torch's OpenMP threads, not to bring its own
from torch import Tensor, nn

from burnish.kernels.build import begin

_HEADS = [c_void_p, c_int64, c_int64]
_PACK = [c_void_p, c_void_p, c_void_p, c_int64, c_void_p, *(c_int64,) * 4, c_float, c_int64]
_SIGNATURES = {
    "attention_forward": [*_HEADS, *_HEADS, *_HEADS, *_PACK, *(c_void_p,) * 2, c_int64],
    "attention_backward": [*(c_void_p,) * 3, *_HEADS, *_HEADS, *_HEADS, *_PACK, *(c_void_p,) * 3, c_int64],
    "inverse_rms": [c_void_p, c_float, c_int64, c_int64, c_void_p, c_int64],
    "norm_forward": [*(c_void_p,) * 3, c_int64, c_int64, c_void_p, c_int64],
    "norm_backward": [*(c_void_p,) * 5, c_int64, c_int64, c_void_p, c_void_p, c_int64],
    "gate_forward": [c_void_p, c_void_p, c_int64, c_void_p, c_int64],
    "gate_backward": [*(c_void_p,) * 3, c_int64, *(c_void_p,) * 2, c_int64],
    "grade_rows": [c_void_p, c_int64, c_int64, *(c_void_p,) * 4, c_int, c_int64],
}


@lru_cache(maxsize=1)
def kernels() -> ctypes.CDLL | None:
    """The library; None where it cannot be had, for which `why_none` has the words."""
    build = begin()
    path = build.finish()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        build.why_not = f"{path}: {error}"
        return None
    for name, takes in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = takes, c_int
    return library


_off: list[str] = []


def switch_off(why: str) -> None:
    """Leave all to torch's operations from here on."""
    _off.append(why)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within the block all is left to torch's operations."""
    switch_off("switched off")
    try:
        yield
    finally:
        _off.pop()


def why_none() -> str | None:
    """Why no kernels are used here, in words; None if they are."""
    if _off:
        return _off[0]
    return None if kernels() is not None else begin().why_not


def take(*tensors: Tensor) -> bool:
    """Whether there are kernels and they take these: bf16, on the CPU, plain tensors."""
    fit = all(
        tensor.dtype == torch.bfloat16
        and tensor.device.type == "cpu"
        and type(tensor) in (Tensor, nn.Parameter)
        for tensor in tensors
    )
    return fit and not _off and kernels() is not None
